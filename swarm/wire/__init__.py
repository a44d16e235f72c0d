"""Bytes that travel between nodes <-> native values, and nothing else: `encode_*` and `decode_*`.

Promises that any bytes decode to a value that keeps its bounds, or raise RemoteProtocolError; never anything else.
Generated protobuf types (v1/) stop here. Knows no sockets, no signatures' validity and no release: whether token ids
are inside the vocabulary, or rows have the model's width, is for the stage to judge.
"""

from swarm.wire.checks import printable
from swarm.wire.codec import (
    decode_result,
    decode_results_request,
    decode_run_reply,
    encode_result,
    encode_results_request,
    encode_run_reply,
)
from swarm.wire.exchange_codec import (
    MAX_FACTS,
    decode_dial_back_reply,
    decode_dial_back_request,
    decode_exchange_reply,
    decode_exchange_request,
    encode_dial_back_reply,
    encode_dial_back_request,
    encode_exchange_reply,
    encode_exchange_request,
)
from swarm.wire.expert_codec import (
    decode_expert_reply,
    decode_expert_request,
    encode_expert_reply,
    encode_expert_request,
)
from swarm.wire.fact_codec import (
    FACT_DOMAIN,
    MAX_RTTS,
    decode_fact,
    decode_signed_fact,
    encode_fact,
    encode_signed_fact,
)
from swarm.wire.relay_codec import (
    MAX_DATA_BYTES,
    TUNNEL_BYTES,
    decode_accept_opening,
    decode_connect_opening,
    decode_relay_data,
    decode_reserve_reply,
    encode_accept_opening,
    encode_connect_opening,
    encode_relay_data,
    encode_reserve_reply,
)
from swarm.wire.run_request import decode_run_request, encode_run_request

__all__ = [
    "FACT_DOMAIN",
    "MAX_DATA_BYTES",
    "MAX_FACTS",
    "MAX_RTTS",
    "TUNNEL_BYTES",
    "decode_accept_opening",
    "decode_connect_opening",
    "decode_dial_back_reply",
    "decode_dial_back_request",
    "decode_exchange_reply",
    "decode_exchange_request",
    "decode_expert_reply",
    "decode_expert_request",
    "decode_fact",
    "decode_relay_data",
    "decode_reserve_reply",
    "decode_result",
    "decode_results_request",
    "decode_run_reply",
    "decode_run_request",
    "decode_signed_fact",
    "encode_accept_opening",
    "encode_connect_opening",
    "encode_dial_back_reply",
    "encode_dial_back_request",
    "encode_exchange_reply",
    "encode_exchange_request",
    "encode_expert_reply",
    "encode_expert_request",
    "encode_fact",
    "encode_relay_data",
    "encode_reserve_reply",
    "encode_result",
    "encode_results_request",
    "encode_run_reply",
    "encode_run_request",
    "encode_signed_fact",
    "printable",
]
