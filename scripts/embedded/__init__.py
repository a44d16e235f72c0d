"""How the release that ships inside the package is made: its corpus, and the training on it.

Knows nothing of the swarm that serves the result.
"""
