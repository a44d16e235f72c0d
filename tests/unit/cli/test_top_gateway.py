"""Reading a gateway's metrics, from a real socket: sums over labels, rates between looks, and every way to fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from swarm.cli.top_gateway import GENERATED, RUNNING, WAITING, Gateway, GatewayLook, sum_samples
from swarm.errors import BadArgument
from swarm.gateway.operations.metrics import METRIC_NAMES, Metrics

METRICS = f"""# HELP {RUNNING} Requests that run now.
# TYPE {RUNNING} gauge
{RUNNING}{{model_name="a"}} 2.0
{RUNNING}{{model_name="b, \\"the\\" {{second}}"}} 1.0
{WAITING} 4
{GENERATED}{{model_name="a"}} 1e2
{GENERATED}{{model_name="b"}} 50.0 1700000000000
{GENERATED}_created{{model_name="b"}} 1.7e+09
"""


class MetricsServer(ThreadingHTTPServer):
    """Answers any path with `answers`, the last one for ever; keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MetricsHandler)
        self.answers: list[tuple[int, str]] = []
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class MetricsHandler(BaseHTTPRequestHandler):
    server: MetricsServer

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        status, text = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with MetricsServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_names_are_those_of_the_gateway() -> None:
    assert {RUNNING, WAITING, GENERATED} <= set(METRIC_NAMES)


def test_sums_go_over_all_models() -> None:
    sums = sum_samples(METRICS, (RUNNING, WAITING, GENERATED, "swarm:absent"))
    assert sums == {RUNNING: 3.0, WAITING: 4.0, GENERATED: 150.0, "swarm:absent": None}


def test_a_gateway_that_served_nobody_yet_has_figures(server: MetricsServer) -> None:
    metrics = Metrics()
    server.answers = [(200, metrics.render()[0].decode())]
    gateway = Gateway(server.url, clock=iter([1.0, 2.0]).__next__)
    assert gateway.look() == GatewayLook(0, 0, None)
    with metrics.begin("a") as request, metrics.begin("b"):
        request.admitted()
        for _ in range(3):
            request.token()
        server.answers = [(200, metrics.render()[0].decode())]
        assert gateway.look() == GatewayLook(1, 1, 3.0)


def test_lines_that_are_no_samples_are_passed_over() -> None:
    assert sum_samples('a\na 1 2 3 4\na x\n\n{} 3\na{b="c"}5', ("a",)) == {"a": None}


def test_a_rate_needs_two_looks(server: MetricsServer) -> None:
    later = METRICS.replace("1e2", "180")
    server.answers = [(200, METRICS), (200, later), (200, METRICS)]
    now_s = iter([10.0, 12.0, 13.0])
    gateway = Gateway(server.url, clock=lambda: next(now_s))
    assert gateway.look() == GatewayLook(3, 4, None)
    assert gateway.look() == GatewayLook(3, 4, 40.0)
    assert gateway.look() == GatewayLook(3, 4, None), "a smaller count is another gateway's"


def test_the_key_goes_along_and_v1_may_be_named(server: MetricsServer) -> None:
    server.answers = [(200, METRICS)]
    Gateway(server.url + "/v1/", "sk-1").look()
    Gateway(server.url).look()
    assert server.asked == [("/metrics", "Bearer sk-1"), ("/metrics", None)]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ((401, "no"), "answered 401; name its key with --api-key"),
        ((503, ""), "answered 503; start one with `swarm gateway MAGNET`"),
        ((200, "<html>"), f"is no gateway, its metrics lack {RUNNING}"),
    ],
)
def test_what_a_gateway_refuses_is_a_fault(server: MetricsServer, answer: tuple[int, str], fault: str) -> None:
    server.answers = [answer]
    seen = Gateway(server.url).look()
    assert seen.fault.startswith(f"{server.url} {fault}")
    assert seen.fields() == {"fault": seen.fault}


def test_nobody_there_is_a_fault_and_a_later_look_may_succeed(server: MetricsServer) -> None:
    with MetricsServer() as gone:
        url = gone.url
    fault = Gateway(f"{url}/v1").look().fault
    assert fault.startswith(
        f"{url} does not answer (Connection refused); start one with `swarm gateway MAGNET`, or name"
    )


def test_a_key_that_no_header_carries_is_refused() -> None:
    with pytest.raises(BadArgument, match="--api-key"):
        Gateway("http://127.0.0.1:1", "sk\n1")
