import swarm.wire


def test_exported_names() -> None:
    kinds = (
        "exchange_reply",
        "expert_reply",
        "expert_request",
        "exchange_request",
        "fact",
        "result",
        "results_request",
        "run_reply",
        "run_request",
    )
    expected = {f"{verb}_{kind}" for verb in ("encode", "decode") for kind in (*kinds, "signed_fact")}
    assert set(swarm.wire.__all__) == expected | {"FACT_DOMAIN", "printable"}
    assert all(hasattr(swarm.wire, name) for name in swarm.wire.__all__)
