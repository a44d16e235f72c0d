"""Calls between nodes over gRPC with mutual TLS: Dialer and Connection to make them, RpcServer to serve them.

Promises that both ends of every call have proved their node ids, that what handlers and callers see has passed the
bounds of swarm.wire, that a SwarmError raised by a handler reaches the caller as the same class, and that a peer which
stops answering is noticed within seconds. Knows no sessions, layers or facts: what a call means is for the handlers.
Sole importer of grpc.
"""

import swarm.rpc.quiet  # noqa: F401 - before grpc
from swarm.rpc.config import RpcConfig
from swarm.rpc.connection import Connection
from swarm.rpc.dialer import Dialer
from swarm.rpc.experts_call import ExpertsCall
from swarm.rpc.handlers import ExpertsHandler, NodeHandler, RelayHandler, StageHandler
from swarm.rpc.run_call import RunCall
from swarm.rpc.server import RpcServer
from swarm.rpc.status import error_to_failure, failure_to_error, http_status
from swarm.rpc.tunnel import let_in

__all__ = [
    "Connection",
    "Dialer",
    "ExpertsCall",
    "ExpertsHandler",
    "NodeHandler",
    "RelayHandler",
    "RpcConfig",
    "RpcServer",
    "RunCall",
    "StageHandler",
    "error_to_failure",
    "failure_to_error",
    "http_status",
    "let_in",
]
