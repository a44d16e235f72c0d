"""One table for every error class, and a way back for those that travel."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm import errors
from swarm.errors import (
    BadArgument,
    DeadlineExceeded,
    DiskFull,
    NodeUnreachable,
    PositionMismatch,
    RemoteProtocolError,
    SessionLost,
    StageFull,
    SwarmError,
    Unauthenticated,
)
from swarm.identity import NodeKey
from swarm.messages import Failure
from swarm.rpc.status import (
    TABLE,
    Ending,
    abort_arguments,
    error_of_ending,
    error_to_failure,
    failure_to_error,
    http_status,
)

NODE = NodeKey.generate().node_id
TRAVELLING = [row.error for row in TABLE if row.travels]


def every_error() -> list[type[SwarmError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SwarmError)]


def test_each_error_class_has_exactly_one_row() -> None:
    assert sorted(row.error.__name__ for row in TABLE) == sorted(kind.__name__ for kind in every_error())


def test_codes_are_errors() -> None:
    for row in TABLE:
        assert row.code is not grpc.StatusCode.OK
        assert 400 <= row.http <= 599


@pytest.mark.parametrize("kind", TRAVELLING)
def test_what_travels_comes_back_as_its_own_class(kind: type[SwarmError]) -> None:
    error = kind("what, why, and what mends it")
    code, details, metadata = abort_arguments(error)
    for back in (
        error_of_ending(Ending(code, details, dict(metadata)), "node x"),
        failure_to_error(error_to_failure(error, 2, NODE)),
    ):
        assert type(back) is kind
        assert "what, why, and what mends it" in back.message


def test_a_full_stage_says_when_to_come_back() -> None:
    code, details, metadata = abort_arguments(StageFull("full", 2.5))
    for back in (
        error_of_ending(Ending(code, details, dict(metadata)), "node x"),
        failure_to_error(error_to_failure(StageFull("full", 2.5), 0, NODE)),
    ):
        assert isinstance(back, StageFull)
        assert back.retry_after_s == 2.5


def test_a_failure_names_the_hop_at_fault() -> None:
    assert failure_to_error(Failure(3, NODE, "SessionLost", "gone")).message == f"node {NODE[:8]} (hop 3): gone"


@pytest.mark.parametrize(
    "error", [ValueError("/root/key"), DiskFull("/home/me is full"), errors.LocalProtocolError("bug")]
)
def test_what_does_not_travel_tells_nothing(error: Exception) -> None:
    code, details, metadata = abort_arguments(error)
    assert "/" not in details
    assert code is grpc.StatusCode.INTERNAL
    assert type(error_of_ending(Ending(code, details, dict(metadata)), "node x")) is RemoteProtocolError
    assert type(failure_to_error(error_to_failure(error, 0, NODE))) is RemoteProtocolError


@pytest.mark.parametrize(
    "name", ["DiskFull", "SystemExit", "LocalProtocolError", "", "swarm.errors.SessionLost", "x" * 5000]
)
def test_names_out_of_the_table_are_protocol_errors(name: str) -> None:
    metadata = {"swarm-error": name}
    assert type(error_of_ending(Ending(grpc.StatusCode.ABORTED, "", metadata), "node x")) is RemoteProtocolError
    assert type(failure_to_error(Failure(0, NODE, name, ""))) is RemoteProtocolError


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", NodeUnreachable),
        (grpc.StatusCode.CANCELLED, "", NodeUnreachable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", DeadlineExceeded),
        (grpc.StatusCode.UNAUTHENTICATED, "", Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, "", Unauthenticated),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", StageFull),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (9 vs. 4)", RemoteProtocolError),
        (grpc.StatusCode.UNIMPLEMENTED, "", RemoteProtocolError),
        (grpc.StatusCode.UNKNOWN, "Traceback", RemoteProtocolError),
        (grpc.StatusCode.INTERNAL, "", RemoteProtocolError),
    ],
)
def test_endings_without_a_name(code: grpc.StatusCode, details: str, kind: type[SwarmError]) -> None:
    error = error_of_ending(Ending(code, details, {}), "node x at 127.0.0.1:7")
    assert type(error) is kind
    assert error.message.startswith("node x at 127.0.0.1:7")


@given(
    code=st.sampled_from([code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]),
    details=st.text(max_size=40),
    name=st.one_of(st.none(), st.sampled_from([kind.__name__ for kind in every_error()]), st.text(max_size=20)),
    retry=st.one_of(
        st.none(), st.sampled_from(["nan", "inf", "-1", "1e99", "3"]), st.text(max_size=9), st.binary(max_size=9)
    ),
)
def test_any_ending_is_a_printable_swarm_error(
    code: grpc.StatusCode, details: str, name: str | None, retry: str | bytes | None
) -> None:
    metadata: dict[str, str | bytes] = {}
    if name is not None:
        metadata["swarm-error"] = name
    if retry is not None:
        metadata["swarm-retry-after-s"] = retry
    error = error_of_ending(Ending(code, details, metadata), "node x")
    assert isinstance(error, SwarmError)
    assert error.message.isprintable()
    if isinstance(error, StageFull):
        assert 0 <= error.retry_after_s <= 3600


def test_http_statuses() -> None:
    assert http_status(BadArgument("x")) == 400
    assert http_status(StageFull("x")) == 503
    assert http_status(PositionMismatch("x")) == 409
    assert http_status(SessionLost("x")) == 503
    assert http_status(KeyError("x")) == 500
