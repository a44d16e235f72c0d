"""How calls behave: limits on what a peer may send, and how soon a silent one counts as dead."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from swarm.errors import BadArgument

ChannelOptions = list[tuple[str, Any]]

_METADATA_BYTES = 16 * 1024

RELAYED_KEEPALIVE_S = 15.0
RELAYED_PING_TIMEOUT_S = 60.0
"""Longer than a few large steps of a prompt take through a relay that gives little."""


@dataclass(frozen=True, slots=True)
class RpcConfig:
    """Checked when built; every field is positive. A silent peer counts as dead after keepalive_s + ping_timeout_s.

    max_message_bytes: one message, either way. Raising it raises what one stranger can make us hold, per call.
    keepalive_s: between pings on a connection, at least 1 (gRPC's floor). Lower costs packets on idle connections.
    ping_timeout_s: how long a ping may stay unanswered. Below the worst round trip it breaks good connections.
    silent_s: how long a process with which a stream is open may answer no question, though its connection stands: a
    node that loads layers, or lacks CPU, is slow to answer too.
    connect_timeout_s: for name look-up, TCP, both TLS handshakes.
    handshake_timeout_s: how long a server lets a TCP connection that says nothing sit.
    idle_timeout_s: how long a server keeps a connection without calls; its Dialer makes a new one when it needs it.
    open_timeout_s: how long a Run stream may stay without its Open.
    unary_timeout_s: the longest that a handler of a single request may take, whatever deadline its caller set.
    max_concurrent_rpcs: calls that a server works on at once; more are refused, not queued.
    max_calls_per_caller: of those, from one node id, and from one other host: the others are for everybody else.
    max_connections: that a Dialer keeps open; the longest unused idle one goes first.
    """

    max_message_bytes: int = 32 << 20
    keepalive_s: float = 1.0
    ping_timeout_s: float = 1.0
    silent_s: float = 10.0
    connect_timeout_s: float = 5.0
    handshake_timeout_s: float = 5.0
    idle_timeout_s: float = 600.0
    open_timeout_s: float = 5.0
    unary_timeout_s: float = 10.0
    max_concurrent_rpcs: int = 256
    max_calls_per_caller: int = 192
    max_connections: int = 256

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise BadArgument(f"{field.name} is {getattr(self, field.name)}; give it a number above 0")
        if self.keepalive_s < 1:
            raise BadArgument(
                f"keepalive_s is {self.keepalive_s}; gRPC pings at most once a second, so give it 1 or more"
            )

    def through_relay(self) -> RpcConfig:
        """The same for a connection that a relay carries: there pings and questions wait behind data for as long as its
        rate takes to pass that. A dead end is noticed all the same: by the relay, which tells the other end.
        """
        silent_s = max(self.silent_s, RELAYED_PING_TIMEOUT_S)
        return replace(self, keepalive_s=RELAYED_KEEPALIVE_S, ping_timeout_s=RELAYED_PING_TIMEOUT_S, silent_s=silent_s)

    @classmethod
    def loopback(cls) -> RpcConfig:
        return cls(connect_timeout_s=3.0)

    @classmethod
    def lan(cls) -> RpcConfig:
        return cls()

    @classmethod
    def wan(cls) -> RpcConfig:
        """Slower links: pings may take twice as long, and connecting ten seconds; a dead peer is still seen in 3 s."""
        return cls(ping_timeout_s=2.0, connect_timeout_s=10.0, handshake_timeout_s=10.0, open_timeout_s=10.0)


def channel_options(config: RpcConfig, host_name: str) -> ChannelOptions:
    """host_name: what the pinned certificate is named, whatever address it is dialled at."""
    return [
        *_shared_options(config),
        ("grpc.ssl_target_name_override", host_name),
        ("grpc.enable_http_proxy", 0),  # an http_proxy in the environment would see, or break, every call
        ("grpc.use_local_subchannel_pool", 1),  # else a new connection inherits a dead one's back-off
        ("grpc.enable_retries", 0),  # a step is not idempotent
        ("grpc.service_config_disable_resolution", 1),  # a TXT record must not configure our calls
    ]


def server_options(config: RpcConfig) -> ChannelOptions:
    return [
        *_shared_options(config),
        ("grpc.so_reuseport", 0),  # else a second node on the same port gets half of the first one's calls
        ("grpc.server_handshake_timeout_ms", _milliseconds(config.handshake_timeout_s)),
        ("grpc.max_connection_idle_ms", _milliseconds(config.idle_timeout_s)),
        # Clients ping once per keepalive_s; by default gRPC takes that for an attack and answers "too many pings".
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(config.keepalive_s) // 4),
        # A server that was starved of CPU reads several pings at once; by default that, too, ends the connection.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_concurrent_streams", config.max_concurrent_rpcs),
    ]


def _shared_options(config: RpcConfig) -> ChannelOptions:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        ("grpc.keepalive_time_ms", _milliseconds(config.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _milliseconds(config.ping_timeout_s)),
        # Without this one a stopped process is noticed after 60 s, keepalive or not.
        ("grpc.http2.ping_timeout_ms", _milliseconds(config.ping_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
