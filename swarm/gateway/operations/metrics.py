"""What a Prometheus scrapes: counters, gauges and histograms under `swarm:`, named and labelled as vLLM names its own.

So dashboards and alerts written for vLLM work after replacing the prefix. Labels hold names of served models, fixed
words and paths that the app knows, never what a caller sent: their number is bounded. Own registry: nothing of the
process or of other libraries gets in, and two gateways in one process do not mix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from swarm import __version__
from swarm.client import SwarmStatus
from swarm.facts import NodeState

TIME_TO_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
PER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5, 10, 40)
REQUEST_S = (0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000)
HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

FINISHED_REASONS = ("stop", "length", "tool_calls", "abort", "error")
"""Values of `finished_reason`: vLLM's, and tool_calls. A generation that was cancelled is an abort."""

METRIC_NAMES = (
    "swarm:num_requests_running",
    "swarm:num_requests_waiting",
    "swarm:prompt_tokens_total",
    "swarm:generation_tokens_total",
    "swarm:request_success_total",
    "swarm:request_prompt_tokens",
    "swarm:request_generation_tokens",
    "swarm:time_to_first_token_seconds",
    "swarm:inter_token_latency_seconds",
    "swarm:request_time_per_output_token_seconds",
    "swarm:e2e_request_latency_seconds",
    "swarm:request_queue_time_seconds",
    "swarm:request_prefill_time_seconds",
    "swarm:request_decode_time_seconds",
    "swarm:route_replays_total",
    "swarm:requests_rejected_total",
    "swarm:http_requests_total",
    "swarm:http_request_duration_seconds",
    "swarm:ledger_entries_lost",
    "swarm:nodes",
    "swarm:free_sessions",
    "swarm:layers",
    "swarm:layers_uncovered",
    "swarm:layer_replicas_min",
    "swarm:build_info",
)
"""Every name that /metrics has; histograms add _bucket, _sum and _count to theirs. Dashboards are held against it."""


class Metrics:
    """Everything that /metrics tells. One per gateway.

    begin() each generation, observe_http() each answer, rejected() each refusal, saw_swarm() before each render().
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.registry = CollectorRegistry()
        self._swarms = SwarmCollector()
        self.registry.register(self._swarms)
        Info("swarm:build", "The gateway's version.", registry=self.registry).info({"version": __version__})
        self.running = self._gauge("num_requests_running", "Generations at work.")
        self.waiting = self._gauge("num_requests_waiting", "Generations that wait for a place.")
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of finished generations.")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self.success = self._counter("request_success", "Finished generations.", "finished_reason")
        self.replays = self._counter("route_replays", "Routes that were lost in a generation and replaced.")
        self.request_prompt_tokens = self._histogram("request_prompt_tokens", "Prompt tokens of a request.", TOKENS)
        self.request_generation_tokens = self._histogram(
            "request_generation_tokens", "Tokens generated for it.", TOKENS
        )
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "From a request's arrival to its first token.", TIME_TO_FIRST_TOKEN_S
        )
        self.inter_token = self._histogram(
            "inter_token_latency_seconds", "From one token of a choice to its next.", PER_TOKEN_S
        )
        self.per_output_token = self._histogram(
            "request_time_per_output_token_seconds", "A request's mean time between tokens.", PER_TOKEN_S
        )
        self.e2e = self._histogram("e2e_request_latency_seconds", "From a request's arrival to its end.", REQUEST_S)
        self.queue_time = self._histogram("request_queue_time_seconds", "Waiting for a place.", REQUEST_S)
        self.prefill_time = self._histogram("request_prefill_time_seconds", "From place to first token.", REQUEST_S)
        self.decode_time = self._histogram("request_decode_time_seconds", "From first token to last.", REQUEST_S)
        self._rejected = Counter(
            "swarm:requests_rejected", "Requests refused before they began.", ("reason",), registry=self.registry
        )
        self._http = Counter(
            "swarm:http_requests", "HTTP answers.", ("method", "handler", "status"), registry=self.registry
        )
        self._http_duration = Histogram(
            "swarm:http_request_duration_seconds",
            "From a request's first byte to its answer's last.",
            ("method", "handler"),
            buckets=HTTP_S,
            registry=self.registry,
        )
        self._ledger_lost = Gauge("swarm:ledger_entries_lost", "Requests not in the ledger.", registry=self.registry)
        self._of_models: dict[str, ModelMetrics] = {}

    def saw_swarm(self, model_name: str, status: SwarmStatus) -> None:
        """Tell of this model's nodes and layers from now on. Call it before render() with what is known then.

        A model's counters are there from then on as well, at zero, so that rates begin with its first request.
        """
        if model_name not in self._swarms.statuses:
            for metric in (self.running, self.waiting, self.prompt_tokens, self.generation_tokens, self.replays):
                metric.labels(model_name)
            for reason in FINISHED_REASONS:
                self.success.labels(model_name, reason)
        self._swarms.statuses[model_name] = status

    def watch_ledger(self, n_lost: Callable[[], int]) -> None:
        self._ledger_lost.set_function(n_lost)

    def of_model(self, model_name: str) -> ModelMetrics:
        """One model's own, found once: looking for them by their labels costs at every request."""
        if model_name not in self._of_models:
            self._of_models[model_name] = ModelMetrics(self, model_name)
        return self._of_models[model_name]

    def begin(self, model_name: str) -> RequestMeter:
        """A generation arrives, and waits. Use as a context manager: leaving it without finish() counts an abort."""
        return RequestMeter(self.of_model(model_name), self.success, model_name, self._clock)

    def rejected(self, reason: str) -> None:
        """Count a refusal. reason: a fixed word: rate_limited, unauthorized, draining, not_ready, bad_request."""
        self._rejected.labels(reason).inc()

    def observe_http(self, method: str, handler: str, status: int, duration_s: float) -> None:
        """Count an answer. handler: the path of one of the app's routes, or "other"."""
        self._http.labels(method, handler, str(status)).inc()
        self._http_duration.labels(method, handler).observe(duration_s)

    def render(self) -> tuple[bytes, str]:
        """The exposition and its content type: always the plain text format.

        prometheus-client's OpenMetrics writer makes `_` of the `:` in a name, in its samples but not in its metadata.
        """
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"swarm:{name}", words, ("model_name", *labels), registry=self.registry)

    def _gauge(self, name: str, words: str) -> Gauge:
        return Gauge(f"swarm:{name}", words, ("model_name",), registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"swarm:{name}", words, ("model_name",), buckets=buckets, registry=self.registry)


class ModelMetrics:
    """One model's child of each labelled attribute of Metrics, by that attribute's name; made when it is first used."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._metrics = metrics
        self._name = name

    def __getattr__(self, metric: str) -> Any:
        child = getattr(self._metrics, metric).labels(self._name)
        setattr(self, metric, child)
        return child


class RequestMeter:
    """One generation's way through the metrics: begun (waiting) -> admitted() -> token()… -> finish().

    first_token_s, duration_s: seconds since it arrived, for logs as well; None while there is none.
    """

    def __init__(self, metrics: ModelMetrics, success: Counter, name: str, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._success = success
        self._name = name
        self._clock = clock
        self._began_s = clock()
        self._admitted_s: float | None = None
        self._first_s: float | None = None
        self._last_s: dict[int, float] = {}
        self._n_tokens = 0
        self._duration_s: float | None = None
        metrics.waiting.inc()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._duration_s is None:
            self.finish("error" if isinstance(error, Exception) else "abort")

    @property
    def first_token_s(self) -> float | None:
        return None if self._first_s is None else self._first_s - self._began_s

    @property
    def duration_s(self) -> float | None:
        return self._duration_s

    @property
    def n_tokens(self) -> int:
        return self._n_tokens

    def admitted(self) -> None:
        """It has its place."""
        self._admitted_s = self._clock()
        self._metrics.waiting.dec()
        self._metrics.running.inc()
        self._metrics.queue_time.observe(self._admitted_s - self._began_s)

    def token(self, choice_idx: int = 0) -> None:
        """A token came, of one of the n choices that may be generated side by side."""
        now_s = self._clock()
        if self._first_s is None:
            self._first_s = now_s
            self._metrics.first_token.observe(now_s - self._began_s)
            if self._admitted_s is not None:
                self._metrics.prefill_time.observe(now_s - self._admitted_s)
        if choice_idx in self._last_s:
            self._metrics.inter_token.observe(now_s - self._last_s[choice_idx])
        self._last_s[choice_idx] = now_s
        self._n_tokens += 1
        self._metrics.generation_tokens.inc()

    def finish(self, finished_reason: str, n_prompt_tokens: int = 0, n_replays: int = 0) -> None:
        """It is over. finished_reason: a finish_reason of the API; what is none of FINISHED_REASONS counts as one."""
        if self._duration_s is not None:
            return
        now_s, metrics = self._clock(), self._metrics
        self._duration_s = now_s - self._began_s
        (metrics.waiting if self._admitted_s is None else metrics.running).dec()
        self._success.labels(self._name, known_reason(finished_reason)).inc()
        metrics.e2e.observe(self._duration_s)
        metrics.prompt_tokens.inc(n_prompt_tokens)
        metrics.replays.inc(n_replays)
        if n_prompt_tokens:
            metrics.request_prompt_tokens.observe(n_prompt_tokens)
        if self._first_s is not None:
            metrics.request_generation_tokens.observe(self._n_tokens)
            decode_s = max(self._last_s.values()) - self._first_s
            metrics.decode_time.observe(decode_s)
            n_gaps = max(self._n_tokens / len(self._last_s) - 1, 0)
            if n_gaps:
                metrics.per_output_token.observe(decode_s / n_gaps)


def known_reason(finish_reason: str) -> str:
    if finish_reason in FINISHED_REASONS:
        return finish_reason
    return {"cancelled": "abort", "model_length": "length"}.get(finish_reason, "error")


class SwarmCollector(Collector):
    """Gauges of the served swarms, as they were last seen."""

    def __init__(self) -> None:
        self.statuses: dict[str, SwarmStatus] = {}

    def collect(self) -> Iterable[Metric]:
        nodes = GaugeMetricFamily("swarm:nodes", "Nodes by state.", labels=("model_name", "state"))
        free = GaugeMetricFamily("swarm:free_sessions", "Sessions that nodes have room for.", labels=("model_name",))
        layers = GaugeMetricFamily("swarm:layers", "Layers of the model.", labels=("model_name",))
        uncovered = GaugeMetricFamily("swarm:layers_uncovered", "Layers that nobody serves.", labels=("model_name",))
        fewest = GaugeMetricFamily("swarm:layer_replicas_min", "Hosts of the rarest layer.", labels=("model_name",))
        for name, seen in self.statuses.items():
            for state in NodeState:
                nodes.add_metric((name, state.value), sum(fact.state is state for fact in seen.nodes))
            free.add_metric((name,), sum(fact.free_sessions for fact in seen.nodes))
            layers.add_metric((name,), seen.n_layers)
            uncovered.add_metric((name,), len(seen.missing_layers))
            fewest.add_metric((name,), min(seen.hosts_per_layer, default=0))
        return (nodes, free, layers, uncovered, fewest)
