"""What went wrong, as HTTP has it: the one table from the error tree to statuses. Each dialect words it its own way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from swarm.errors import (
    BadArgument,
    ContextLengthExceeded,
    DeadlineExceeded,
    DiscoveryError,
    GatewayDraining,
    KeyRefused,
    RpcError,
    SessionError,
    StageFull,
    SwarmError,
    TooManyRequests,
    TransferError,
)
from swarm.gateway.models import ModelNotOpen, UnknownModel

RETRY_AFTER_S = 2.0
"""For what mends itself in a while nobody knows: nodes that join, a release that is being opened."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One refusal or failure. kind, code: words for programs. param: the field of the request that it is about.

    retry_after_s: None where trying again is of no use. loc: the way to that field, where the field itself is wrong.
    """

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None
    loc: tuple[str | int, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        headers = {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


class Refused(SwarmError):
    """A request that ends here, with all that the answer says of it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class BadField(BadArgument):
    """One field of a request's body cannot be meant. loc: the way to it. kind: a word for what is wrong with it."""

    def __init__(self, loc: tuple[str | int, ...], message: str, kind: str = "value_error") -> None:
        super().__init__(message)
        self.loc = loc
        self.kind = kind


def fault_of(error: Exception) -> Fault:
    """What to answer. An error that is none of ours is a bug: its text stays in the log."""
    match error:
        case Refused():
            return error.fault
        case KeyRefused():
            return Fault(401, error.message, "authentication_error", "invalid_api_key")
        case TooManyRequests():
            return Fault(429, error.message, "rate_limit_error", "rate_limit_exceeded", None, error.retry_after_s)
        case GatewayDraining():
            return Fault(503, error.message, "service_unavailable", "draining", None, error.retry_after_s)
        case StageFull():
            return Fault(503, error.message, "service_unavailable", "swarm_full", None, error.retry_after_s)
        case UnknownModel():
            return Fault(404, error.message, "invalid_request_error", "model_not_found", "model")
        case ModelNotOpen():
            return Fault(503, error.message, "service_unavailable", "model_not_ready", "model", RETRY_AFTER_S)
        case BadField():
            param = ".".join(map(str, error.loc))
            return Fault(400, error.message, "invalid_request_error", error.kind, param, None, error.loc)
        case ContextLengthExceeded():
            return Fault(400, error.message, "invalid_request_error", "context_length_exceeded", "messages")
        case BadArgument():
            return Fault(400, error.message)
        case DiscoveryError() | TransferError():
            return Fault(503, error.message, "service_unavailable", "swarm_incomplete", None, RETRY_AFTER_S)
        case DeadlineExceeded():
            return Fault(504, error.message, "server_error", "timeout", None, RETRY_AFTER_S)
        case RpcError() | SessionError():
            return Fault(503, error.message, "server_error", "route_lost", None, RETRY_AFTER_S)
        case SwarmError():
            return Fault(500, error.message, "server_error")
        case _:
            return Fault(500, "the gateway failed at this request; its log says why", "server_error", "internal_error")
