from typing import Any

import pytest

import swarm.rpc
from swarm.errors import BadArgument
from swarm.rpc import RpcConfig
from swarm.rpc.config import channel_options, server_options


@pytest.mark.parametrize(
    "changes",
    [{"keepalive_s": 0.5}, {"max_message_bytes": 0}, {"connect_timeout_s": -1}, {"ping_timeout_s": float("nan")}],
)
def test_impossible_values_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        RpcConfig(**changes)


@pytest.mark.parametrize("config", [RpcConfig.loopback(), RpcConfig.lan(), RpcConfig.wan()])
def test_presets_notice_a_silent_peer_within_three_seconds(config: RpcConfig) -> None:
    assert config.keepalive_s + config.ping_timeout_s <= 3
    for options in (dict(channel_options(config, "name")), dict(server_options(config))):
        assert options["grpc.http2.ping_timeout_ms"] == config.ping_timeout_s * 1000
        assert options["grpc.keepalive_time_ms"] == config.keepalive_s * 1000
        assert options["grpc.keepalive_timeout_ms"] == config.ping_timeout_s * 1000
    assert dict(server_options(config))["grpc.http2.min_ping_interval_without_data_ms"] < config.keepalive_s * 1000


@pytest.mark.parametrize("config", [RpcConfig.loopback(), RpcConfig.wan(), RpcConfig(silent_s=90.0)])
def test_a_process_behind_a_relay_may_be_silent_for_as_long_as_its_pings_may(config: RpcConfig) -> None:
    relayed = config.through_relay()
    assert relayed.silent_s >= relayed.ping_timeout_s and relayed.silent_s >= config.silent_s


def test_exported_names() -> None:
    assert swarm.rpc.__all__ == [
        "Connection",
        "Dialer",
        "ExpertsCall",
        "ExpertsHandler",
        "NodeHandler",
        "RelayHandler",
        "RpcConfig",
        "RpcServer",
        "RunCall",
        "StageHandler",
        "error_to_failure",
        "failure_to_error",
        "http_status",
        "let_in",
    ]
    assert all(hasattr(swarm.rpc, name) for name in swarm.rpc.__all__)
