"""A peer-to-peer swarm that distributes open-weight Mistral models by torrent and runs them together."""

__version__ = "0.1.0"
