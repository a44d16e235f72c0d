"""What a scrape shows after requests of every fate, under the names that dashboards know."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from swarm.client import SwarmStatus
from swarm.facts import NodeFact, NodeState
from swarm.gateway.operations.metrics import FINISHED_REASONS, METRIC_NAMES, Metrics
from swarm.terms import Address, Infohash, NodeId, Profile, Span

RELEASE = Infohash("ab" * 20)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics) -> Samples:
    families = text_string_to_metric_families(metrics.render()[0].decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(metrics: Metrics, name: str, model_name: str = "m", **labels: str) -> float | None:
    return samples(metrics).get((f"swarm:{name}", tuple(sorted({"model_name": model_name, **labels}.items()))))


def fact(letter: str, state: NodeState, *spans: Span) -> NodeFact:
    return NodeFact(
        NodeId(letter * 52), RELEASE, Address("127.0.0.1", 1), 1, 0.0, 60.0, state, spans, Profile("fp32"), 4, 3
    )


SEEN = SwarmStatus(
    "m",
    RELEASE,
    4,
    (fact("a", NodeState.SERVING, Span(0, 3)), fact("b", NodeState.SERVING, Span(0, 2)), fact("c", NodeState.JOINING)),
    (2, 2, 1, 0),
)


def test_a_request_from_arrival_to_end(clock: Any) -> None:
    metrics = Metrics(clock=clock)
    with metrics.begin("m") as meter:
        assert (value(metrics, "num_requests_waiting"), value(metrics, "num_requests_running")) == (1, None)
        clock.now_s += 2
        meter.admitted()
        assert (value(metrics, "num_requests_waiting"), value(metrics, "num_requests_running")) == (0, 1)
        clock.now_s += 1
        meter.token()
        assert meter.first_token_s == 3
        for _ in range(4):
            clock.now_s += 0.5
            meter.token()
        meter.finish("stop", n_prompt_tokens=7, n_replays=1)
    assert (meter.duration_s, meter.n_tokens) == (5, 5)
    sums = {
        "request_queue_time_seconds": (1, 2.0),
        "time_to_first_token_seconds": (1, 3.0),
        "request_prefill_time_seconds": (1, 1.0),
        "inter_token_latency_seconds": (4, 2.0),
        "request_decode_time_seconds": (1, 2.0),
        "request_time_per_output_token_seconds": (1, 0.5),
        "e2e_request_latency_seconds": (1, 5.0),
        "request_prompt_tokens": (1, 7.0),
        "request_generation_tokens": (1, 5.0),
    }
    assert {n: (value(metrics, f"{n}_count"), value(metrics, f"{n}_sum")) for n in sums} == sums
    assert value(metrics, "num_requests_running") == 0
    assert value(metrics, "prompt_tokens_total") == 7
    assert value(metrics, "generation_tokens_total") == 5
    assert value(metrics, "route_replays_total") == 1
    assert value(metrics, "request_success_total", finished_reason="stop") == 1


def test_choices_side_by_side_have_their_own_gaps(clock: Any) -> None:
    metrics = Metrics(clock=clock)
    with metrics.begin("m") as meter:
        meter.admitted()
        for _ in range(3):
            clock.now_s += 1
            meter.token(0)
            meter.token(1)
        meter.finish("length")
    assert value(metrics, "inter_token_latency_seconds_count") == 4
    assert value(metrics, "inter_token_latency_seconds_sum") == 4
    assert value(metrics, "request_time_per_output_token_seconds_sum") == 1


@pytest.mark.parametrize(
    ("told", "counted"),
    [(reason, reason) for reason in FINISHED_REASONS]
    + [("cancelled", "abort"), ("model_length", "length"), ("what a caller makes up", "error")],
)
def test_reasons_are_a_closed_set(told: str, counted: str) -> None:
    metrics = Metrics()
    with metrics.begin("m") as meter:
        meter.finish(told)
        meter.finish("stop")  # only the first counts
    found = [dict(labels)["finished_reason"] for (name, labels) in samples(metrics) if name.endswith("success_total")]
    assert found == [counted]


@pytest.mark.parametrize(
    ("error", "reason"), [(RuntimeError, "error"), (KeyboardInterrupt, "abort"), (GeneratorExit, "abort")]
)
@pytest.mark.parametrize("is_admitted", [False, True])
def test_a_request_that_is_left_is_counted_and_runs_no_more(
    error: type[BaseException], reason: str, is_admitted: bool
) -> None:
    metrics = Metrics()

    def serve() -> None:
        with metrics.begin("m") as meter:
            if is_admitted:
                meter.admitted()
            raise error

    with pytest.raises(error):
        serve()
    assert value(metrics, "request_success_total", finished_reason=reason) == 1
    assert value(metrics, "num_requests_waiting") == 0
    assert value(metrics, "num_requests_running") == (0 if is_admitted else None)
    assert value(metrics, "time_to_first_token_seconds_count") is None


def test_the_swarm_as_it_was_last_seen() -> None:
    metrics = Metrics()
    metrics.saw_swarm("m", SEEN)
    assert {state: value(metrics, "nodes", state=state) for state in ("serving", "joining", "draining")} == {
        "serving": 2,
        "joining": 1,
        "draining": 0,
    }
    names = ("layers", "layers_uncovered", "layer_replicas_min", "free_sessions")
    assert [value(metrics, name) for name in names] == [4, 1, 0, 9]


def test_a_served_models_counters_begin_at_zero() -> None:
    metrics = Metrics()
    metrics.saw_swarm("m", SEEN)
    assert value(metrics, "num_requests_running") == 0
    assert value(metrics, "request_success_total", finished_reason="tool_calls") == 0
    with metrics.begin("m") as meter:
        meter.finish("stop", n_prompt_tokens=3)
    metrics.saw_swarm("m", SEEN)
    assert value(metrics, "prompt_tokens_total") == 3


def used() -> Metrics:
    metrics = Metrics()
    metrics.saw_swarm("m", SEEN)
    with metrics.begin("m") as meter:
        meter.admitted()
        meter.token()
        meter.token()
        meter.finish("stop", n_prompt_tokens=3)
    metrics.rejected("rate_limited")
    metrics.observe_http("POST", "/v1/chat/completions", 200, 0.5)
    metrics.watch_ledger(lambda: 4)
    return metrics


def test_the_names_are_those_that_dashboards_are_held_against() -> None:
    families = text_string_to_metric_families(used().render()[0].decode())
    names = [
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if not family.name.endswith("_created")
    ]
    assert sorted(names) == sorted(METRIC_NAMES)


def test_the_exposition_is_the_plain_text_format() -> None:
    body, content_type = used().render()
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"swarm:ledger_entries_lost 4.0\n" in body
    assert b'swarm:http_requests_total{handler="/v1/chat/completions",method="POST",status="200"} 1.0\n' in body


def test_two_gateways_in_one_process_do_not_mix() -> None:
    first, second = used(), Metrics()
    second.saw_swarm("m", SEEN)
    assert value(first, "prompt_tokens_total") == 3
    assert value(second, "prompt_tokens_total") == 0
