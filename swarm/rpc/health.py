"""grpc.health.v1 for this server, so that any gRPC health client with a certificate can ask.

Check only: a Watch lives for ever, and a few hundred of a stranger's would use up the calls that a server works on.
"""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from swarm.rpc.paths import STAGE_SERVICE
from swarm.terms import NodeId

_SERVICES = ("", STAGE_SERVICE)
_Response = health_pb2.HealthCheckResponse


class Health:
    """Says SERVING or NOT_SERVING of the whole server and of its Stage service alike."""

    def __init__(self) -> None:
        self._serving = False
        self._stopping = False

    def set_serving(self, serving: bool) -> None:
        self._serving = serving and not self._stopping

    def stop(self) -> None:
        """NOT_SERVING for good."""
        self._serving = False
        self._stopping = True

    async def check(self, request: bytes, context: grpc.aio.ServicerContext, caller: NodeId) -> bytes:
        status = self._status(_service_of(request))
        if status == _Response.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this server has no such service")
        return _Response(status=status).SerializeToString()

    def _status(self, service: str | None) -> int:
        if service not in _SERVICES:
            return _Response.SERVICE_UNKNOWN
        return _Response.SERVING if self._serving else _Response.NOT_SERVING


def _service_of(request: bytes) -> str | None:
    try:
        return health_pb2.HealthCheckRequest.FromString(request).service
    except DecodeError:
        return None
