"""The client library: a prompt becomes a route, the route's steps become tokens.

Promises that a token is journaled before the caller sees it, that its value depends only on the prompt, the
parameters, the seed and the profile (never on the route), and that losing a stage costs time, not tokens. Moves only
token ids and top logits; does NOT hold weights, import torch, or know what hosts a layer beyond the facts.
"""

from swarm.client.guest import AsyncClient, connect_async
from swarm.client.journal import Journal
from swarm.client.sync import Client, TokenStream, connect
from swarm.client.values import ClientRelease, Generation, SwarmStatus, TokenEvent, Usage

__all__ = [
    "AsyncClient",
    "Client",
    "ClientRelease",
    "Generation",
    "Journal",
    "SwarmStatus",
    "TokenEvent",
    "TokenStream",
    "Usage",
    "connect",
    "connect_async",
]
