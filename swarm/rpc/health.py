"""grpc.health.v1 for this server: the standard protocol, so that any gRPC health client with a certificate can ask."""

from __future__ import annotations

import asyncio

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
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        self._serving = serving and not self._stopping
        self._wake()

    def stop(self) -> None:
        """NOT_SERVING for good, and the end of every Watch: an open one would hold a stop for all its grace."""
        self._serving = False
        self._stopping = True
        self._wake()

    async def check(self, request: bytes, context: grpc.aio.ServicerContext, caller: NodeId) -> bytes:
        status = self._status(_service_of(request))
        if status == _Response.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this server has no such service")
        return _Response(status=status).SerializeToString()

    async def watch(self, request: bytes, context: grpc.aio.ServicerContext, caller: NodeId) -> None:
        service, last = _service_of(request), None
        while True:
            changed, status = self._changed, self._status(service)
            if status != last:
                await context.write(_Response(status=status).SerializeToString())
                last = status
            if self._stopping:
                return
            await changed.wait()

    def _status(self, service: str | None) -> int:
        if service not in _SERVICES:
            return _Response.SERVICE_UNKNOWN
        return _Response.SERVING if self._serving else _Response.NOT_SERVING

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _service_of(request: bytes) -> str | None:
    try:
        return health_pb2.HealthCheckRequest.FromString(request).service
    except DecodeError:
        return None
