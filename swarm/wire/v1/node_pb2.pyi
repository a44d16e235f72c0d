from swarm.wire.v1 import stage_pb2 as _stage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_STATE_UNSPECIFIED: _ClassVar[NodeState]
    NODE_STATE_JOINING: _ClassVar[NodeState]
    NODE_STATE_SERVING: _ClassVar[NodeState]
    NODE_STATE_DRAINING: _ClassVar[NodeState]
    NODE_STATE_LEFT: _ClassVar[NodeState]

class Reachability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REACHABILITY_UNKNOWN: _ClassVar[Reachability]
    REACHABILITY_REACHABLE: _ClassVar[Reachability]
    REACHABILITY_UNREACHABLE: _ClassVar[Reachability]
NODE_STATE_UNSPECIFIED: NodeState
NODE_STATE_JOINING: NodeState
NODE_STATE_SERVING: NodeState
NODE_STATE_DRAINING: NodeState
NODE_STATE_LEFT: NodeState
REACHABILITY_UNKNOWN: Reachability
REACHABILITY_REACHABLE: Reachability
REACHABILITY_UNREACHABLE: Reachability

class NodeFact(_message.Message):
    __slots__ = ("node_id", "release", "address", "seq", "issued_at_s", "ttl_s", "state", "spans", "profile", "n_layers", "free_sessions", "layer_time_s", "torrent_port", "needed_bytes", "fetched_bytes", "version", "loaded_spans", "trunks", "loaded_trunks", "experts", "loaded_experts", "n_experts", "expert_wait_s", "heat", "reachability", "relay", "relay_places", "rtt_tags", "rtts_s", "found_bytes", "uploaded_bytes", "downloaded_bytes", "placed_at_s", "leaving_spans", "throughput", "queue_s")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_S_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    N_LAYERS_FIELD_NUMBER: _ClassVar[int]
    FREE_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    LAYER_TIME_S_FIELD_NUMBER: _ClassVar[int]
    TORRENT_PORT_FIELD_NUMBER: _ClassVar[int]
    NEEDED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FETCHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LOADED_SPANS_FIELD_NUMBER: _ClassVar[int]
    TRUNKS_FIELD_NUMBER: _ClassVar[int]
    LOADED_TRUNKS_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    LOADED_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    N_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    EXPERT_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    HEAT_FIELD_NUMBER: _ClassVar[int]
    REACHABILITY_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    RELAY_PLACES_FIELD_NUMBER: _ClassVar[int]
    RTT_TAGS_FIELD_NUMBER: _ClassVar[int]
    RTTS_S_FIELD_NUMBER: _ClassVar[int]
    FOUND_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPLOADED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DOWNLOADED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PLACED_AT_S_FIELD_NUMBER: _ClassVar[int]
    LEAVING_SPANS_FIELD_NUMBER: _ClassVar[int]
    THROUGHPUT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    release: bytes
    address: str
    seq: int
    issued_at_s: float
    ttl_s: float
    state: NodeState
    spans: _containers.RepeatedCompositeFieldContainer[_stage_pb2.Span]
    profile: str
    n_layers: int
    free_sessions: int
    layer_time_s: float
    torrent_port: int
    needed_bytes: int
    fetched_bytes: int
    version: str
    loaded_spans: _containers.RepeatedCompositeFieldContainer[_stage_pb2.Span]
    trunks: _containers.RepeatedCompositeFieldContainer[_stage_pb2.Span]
    loaded_trunks: _containers.RepeatedCompositeFieldContainer[_stage_pb2.Span]
    experts: _containers.RepeatedCompositeFieldContainer[ExpertRange]
    loaded_experts: _containers.RepeatedCompositeFieldContainer[ExpertRange]
    n_experts: int
    expert_wait_s: float
    heat: _containers.RepeatedCompositeFieldContainer[LayerHeat]
    reachability: Reachability
    relay: str
    relay_places: int
    rtt_tags: _containers.RepeatedScalarFieldContainer[int]
    rtts_s: _containers.RepeatedScalarFieldContainer[float]
    found_bytes: int
    uploaded_bytes: int
    downloaded_bytes: int
    placed_at_s: float
    leaving_spans: _containers.RepeatedCompositeFieldContainer[_stage_pb2.Span]
    throughput: float
    queue_s: float
    def __init__(self, node_id: _Optional[str] = ..., release: _Optional[bytes] = ..., address: _Optional[str] = ..., seq: _Optional[int] = ..., issued_at_s: _Optional[float] = ..., ttl_s: _Optional[float] = ..., state: _Optional[_Union[NodeState, str]] = ..., spans: _Optional[_Iterable[_Union[_stage_pb2.Span, _Mapping]]] = ..., profile: _Optional[str] = ..., n_layers: _Optional[int] = ..., free_sessions: _Optional[int] = ..., layer_time_s: _Optional[float] = ..., torrent_port: _Optional[int] = ..., needed_bytes: _Optional[int] = ..., fetched_bytes: _Optional[int] = ..., version: _Optional[str] = ..., loaded_spans: _Optional[_Iterable[_Union[_stage_pb2.Span, _Mapping]]] = ..., trunks: _Optional[_Iterable[_Union[_stage_pb2.Span, _Mapping]]] = ..., loaded_trunks: _Optional[_Iterable[_Union[_stage_pb2.Span, _Mapping]]] = ..., experts: _Optional[_Iterable[_Union[ExpertRange, _Mapping]]] = ..., loaded_experts: _Optional[_Iterable[_Union[ExpertRange, _Mapping]]] = ..., n_experts: _Optional[int] = ..., expert_wait_s: _Optional[float] = ..., heat: _Optional[_Iterable[_Union[LayerHeat, _Mapping]]] = ..., reachability: _Optional[_Union[Reachability, str]] = ..., relay: _Optional[str] = ..., relay_places: _Optional[int] = ..., rtt_tags: _Optional[_Iterable[int]] = ..., rtts_s: _Optional[_Iterable[float]] = ..., found_bytes: _Optional[int] = ..., uploaded_bytes: _Optional[int] = ..., downloaded_bytes: _Optional[int] = ..., placed_at_s: _Optional[float] = ..., leaving_spans: _Optional[_Iterable[_Union[_stage_pb2.Span, _Mapping]]] = ..., throughput: _Optional[float] = ..., queue_s: _Optional[float] = ...) -> None: ...

class ExpertRange(_message.Message):
    __slots__ = ("layers", "expert_idxs")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    EXPERT_IDXS_FIELD_NUMBER: _ClassVar[int]
    layers: _stage_pb2.Span
    expert_idxs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, layers: _Optional[_Union[_stage_pb2.Span, _Mapping]] = ..., expert_idxs: _Optional[_Iterable[int]] = ...) -> None: ...

class LayerHeat(_message.Message):
    __slots__ = ("layer_idx", "shares")
    LAYER_IDX_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    layer_idx: int
    shares: bytes
    def __init__(self, layer_idx: _Optional[int] = ..., shares: _Optional[bytes] = ...) -> None: ...

class SignedFact(_message.Message):
    __slots__ = ("payload", "signature")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    signature: bytes
    def __init__(self, payload: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("release", "facts", "known")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    release: bytes
    facts: _containers.RepeatedCompositeFieldContainer[SignedFact]
    known: Known
    def __init__(self, release: _Optional[bytes] = ..., facts: _Optional[_Iterable[_Union[SignedFact, _Mapping]]] = ..., known: _Optional[_Union[Known, _Mapping]] = ...) -> None: ...

class Known(_message.Message):
    __slots__ = ("first", "last", "tags", "seqs")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    SEQS_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    tags: _containers.RepeatedScalarFieldContainer[int]
    seqs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ..., tags: _Optional[_Iterable[int]] = ..., seqs: _Optional[_Iterable[int]] = ...) -> None: ...

class ExchangeReply(_message.Message):
    __slots__ = ("facts", "more")
    FACTS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    facts: _containers.RepeatedCompositeFieldContainer[SignedFact]
    more: bool
    def __init__(self, facts: _Optional[_Iterable[_Union[SignedFact, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class DialBackRequest(_message.Message):
    __slots__ = ("port",)
    PORT_FIELD_NUMBER: _ClassVar[int]
    port: int
    def __init__(self, port: _Optional[int] = ...) -> None: ...

class DialBackReply(_message.Message):
    __slots__ = ("host", "reached", "problem")
    HOST_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    host: str
    reached: bool
    problem: str
    def __init__(self, host: _Optional[str] = ..., reached: _Optional[bool] = ..., problem: _Optional[str] = ...) -> None: ...
