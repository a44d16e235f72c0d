"""What only a volunteer machine runs: torch lives here and nowhere else.

The rooms below hold a model's maths (model), its bytes (weights), a span with its sessions (stage) and the gRPC face of
it (server). swarm/ never imports this package: `swarm node` finds it through the entry points `swarm.commands`.
"""
