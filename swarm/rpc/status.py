"""The one table: error class <-> gRPC status <-> HTTP status, and how an error crosses the wire and comes back.

The class's name travels in the trailing metadata `swarm-error`, or as Failure.code; only names that the table marks as
travelling are taken back. Errors about the node's own disk or files do not travel: their messages name local paths.
What does not travel, and what is no SwarmError at all, reaches the caller as RemoteProtocolError with no details.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from swarm import errors
from swarm.errors import (
    DeadlineExceeded,
    NodeUnreachable,
    RemoteProtocolError,
    StageFull,
    SwarmError,
    Unauthenticated,
)
from swarm.messages import Failure
from swarm.terms import NodeId, short_id
from swarm.wire import printable

ERROR_KEY = "swarm-error"
RETRY_AFTER_KEY = "swarm-retry-after-s"

_MAX_DETAILS_CHARACTERS = 1000
_MAX_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Status:
    """http: as a gateway says it to its own client. travels: sent by name, and raised at a remote's word."""

    error: type[SwarmError]
    code: grpc.StatusCode
    http: int
    travels: bool = False


_Code = grpc.StatusCode
TABLE: tuple[Status, ...] = (
    Status(errors.SwarmError, _Code.INTERNAL, 500),
    Status(errors.BadArgument, _Code.INVALID_ARGUMENT, 400, travels=True),
    Status(errors.MagnetError, _Code.INVALID_ARGUMENT, 400),
    Status(errors.LicenceNotAccepted, _Code.FAILED_PRECONDITION, 403),
    Status(errors.ContextLengthExceeded, _Code.OUT_OF_RANGE, 400, travels=True),
    Status(errors.ReleaseError, _Code.INTERNAL, 500),
    Status(errors.UnsupportedArchitecture, _Code.UNIMPLEMENTED, 501),
    Status(errors.CorruptRelease, _Code.DATA_LOSS, 500),
    Status(errors.TransferError, _Code.INTERNAL, 503),
    Status(errors.MetadataTimeout, _Code.INTERNAL, 503),
    Status(errors.TransferStalled, _Code.INTERNAL, 503),
    Status(errors.DiskFull, _Code.INTERNAL, 507),
    Status(errors.VerificationError, _Code.DATA_LOSS, 500),
    Status(errors.DiscoveryError, _Code.NOT_FOUND, 503),
    Status(errors.NoNodesFound, _Code.NOT_FOUND, 503),
    Status(errors.LayersUncovered, _Code.NOT_FOUND, 503),
    Status(errors.RpcError, _Code.UNKNOWN, 502),
    Status(errors.NodeUnreachable, _Code.UNAVAILABLE, 503, travels=True),
    Status(errors.Unauthenticated, _Code.UNAUTHENTICATED, 502, travels=True),
    Status(errors.RemoteProtocolError, _Code.INVALID_ARGUMENT, 502, travels=True),
    Status(errors.DeadlineExceeded, _Code.DEADLINE_EXCEEDED, 504, travels=True),
    Status(errors.SessionError, _Code.ABORTED, 503),
    Status(errors.SessionLost, _Code.ABORTED, 503, travels=True),
    Status(errors.GatewayError, _Code.INTERNAL, 500),
    Status(errors.KeyRefused, _Code.UNAUTHENTICATED, 401),
    Status(errors.TooManyRequests, _Code.RESOURCE_EXHAUSTED, 429),
    Status(errors.GatewayDraining, _Code.UNAVAILABLE, 503),
    Status(errors.StaleEpoch, _Code.FAILED_PRECONDITION, 409, travels=True),
    Status(errors.PositionMismatch, _Code.FAILED_PRECONDITION, 409, travels=True),
    Status(errors.StageFull, _Code.RESOURCE_EXHAUSTED, 503, travels=True),
    Status(errors.ExpertUnavailable, _Code.UNAVAILABLE, 503, travels=True),
    Status(errors.ListenError, _Code.INTERNAL, 500),
    Status(errors.Interrupted, _Code.INTERNAL, 503),
    Status(errors.LocalProtocolError, _Code.INTERNAL, 500),
)


def status_of(error: BaseException) -> Status:
    """The row of the error's class, or of its nearest base; the first row for what is no SwarmError at all."""
    for kind in type(error).__mro__:
        for row in TABLE:
            if row.error is kind:
                return row
    return TABLE[0]


def http_status(error: BaseException) -> int:
    return status_of(error).http


def error_to_failure(error: BaseException, hop_idx: int, node_id: NodeId) -> Failure:
    """What goes up the route when hop `hop_idx`, which is `node_id`, failed with `error`."""
    code, message, retry_after_s = _outward(error)
    return Failure(hop_idx, node_id, code, message, retry_after_s)


def failure_to_error(failure: Failure) -> SwarmError:
    where = f"node {short_id(failure.node_id)} (hop {failure.hop_idx})"
    return _inward(failure.code, f"{where}: {failure.message}", failure.retry_after_s)


def abort_arguments(error: BaseException) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """(code, details, trailing metadata) to end a call with; `error_of_ending` makes the same class of them."""
    code, message, retry_after_s = _outward(error)
    metadata = [(ERROR_KEY, code)]
    if retry_after_s:
        metadata.append((RETRY_AFTER_KEY, f"{retry_after_s:.3f}"))
    return status_of(error).code, message[:_MAX_DETAILS_CHARACTERS], tuple(metadata)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended, as the other side or the transport put it: nothing in here is to be trusted."""

    code: grpc.StatusCode
    details: str
    metadata: Mapping[str, str | bytes]

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Ending:
        return cls(error.code(), error.details() or "", dict(error.trailing_metadata() or ()))

    @property
    def is_transport_failure(self) -> bool:
        """The connection itself failed, as opposed to a handler that says so of something else."""
        return self.code is grpc.StatusCode.UNAVAILABLE and ERROR_KEY not in self.metadata


def error_of_ending(ending: Ending, who: str) -> SwarmError:
    """Why a call failed. who: the node and its address, for the message."""
    details = printable(ending.details or "no reason given", _MAX_DETAILS_CHARACTERS)
    name = ending.metadata.get(ERROR_KEY)
    if isinstance(name, str):
        return _inward(name, f"{who}: {details}", _parse_retry_after(ending.metadata.get(RETRY_AFTER_KEY)))
    match ending.code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return NodeUnreachable(f"{who} can't be reached, or went away during the call: {details}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{who} did not answer in time")
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return Unauthenticated(f"{who} refused this node's identity: {details}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" not in details:
            return StageFull(f"{who} has too many calls to work on: {details}")
        case code:
            return RemoteProtocolError(f"{who} ended the call with {code.name}: {details}")


def _outward(error: BaseException) -> tuple[str, str, float]:
    """(code, message, retry_after_s) that another node may see of `error`."""
    row = status_of(error)
    if not row.travels or not isinstance(error, SwarmError):
        return RemoteProtocolError.__name__, "the node failed inside; its own log says why", 0.0
    return row.error.__name__, error.message, error.retry_after_s if isinstance(error, StageFull) else 0.0


def _inward(name: str, message: str, retry_after_s: float) -> SwarmError:
    for row in TABLE:
        if row.travels and row.error.__name__ == name:
            if issubclass(row.error, StageFull):
                return row.error(message, min(retry_after_s or 1.0, _MAX_RETRY_AFTER_S))
            return row.error(message)
    return RemoteProtocolError(f"{message} (an error of the unknown kind {printable(name, 64)!r})")


def _parse_retry_after(text: str | bytes | None) -> float:
    with contextlib.suppress(TypeError, ValueError):
        seconds = float(text)  # type: ignore[arg-type]
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return 0.0
