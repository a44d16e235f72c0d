"""The node's gRPC handlers: values in, room calls out.

Promises that a session ends on this node, and on every hop behind it, when its caller leaves it, and waits a while for
its next epoch when its stream breaks; and that an error anywhere on the route reaches the client with the hop that is
at fault. Knows how a route is walked, but neither how layers compute (node.stage) nor how bytes travel (swarm.rpc).
"""

from node.server.dial_back import DialBack
from node.server.door import Door
from node.server.drain import drain
from node.server.experts import ExpertsHandler
from node.server.facts import FactsHandler
from node.server.noting import NoteKeeper
from node.server.parts import Parts
from node.server.relay import RelayConfig, RelayHandler
from node.server.sessions import SessionHandler
from node.server.statement import Statement

__all__ = [
    "DialBack",
    "Door",
    "ExpertsHandler",
    "FactsHandler",
    "NoteKeeper",
    "Parts",
    "RelayConfig",
    "RelayHandler",
    "SessionHandler",
    "Statement",
    "drain",
]
