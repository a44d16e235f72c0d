"""The front door: what people and their tools use a swarm's models through, over HTTP.

Promises OpenAI's and Mistral's dialects of one API on one port, each with its own error shapes; that a client which
leaves ends its session on every stage; and that nothing is served to a page or a caller that was not let in. Knows the
client library and nothing below it of how tokens are made: does NOT hold weights, sample, or find routes.

A request's way: `server.py` listens, `app.py` routes, `endpoint.py` lets it in; in the room of `reading.py`,
`chat_request.py` or `completion_requests.py` make an `Asked` of its body, by the dialect's rules (`dialects/`);
`generating.py` runs it, and `answers.py` writes what both SDKs read.
"""

from swarm.gateway.config import GatewayConfig
from swarm.gateway.models import ModelRegistry, ServedModel

__all__ = ["GatewayConfig", "ModelRegistry", "ServedModel"]
