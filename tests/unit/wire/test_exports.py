import swarm.wire

BOTH_WAYS = (
    "accept_opening", "connect_opening", "dial_back_reply", "dial_back_request", "exchange_reply", "exchange_request",
    "expert_reply", "expert_request", "fact", "relay_data", "reserve_reply", "result", "results_request", "run_reply",
    "run_request", "signed_fact",
)  # fmt: skip


def test_exported_names() -> None:
    expected = {f"{verb}_{kind}" for verb in ("encode", "decode") for kind in BOTH_WAYS}
    bounds = {"MAX_DATA_BYTES", "MAX_FACTS", "MAX_RTTS", "TUNNEL_BYTES"}
    assert set(swarm.wire.__all__) == expected | bounds | {"FACT_DOMAIN", "printable"}
    assert all(hasattr(swarm.wire, name) for name in swarm.wire.__all__)
