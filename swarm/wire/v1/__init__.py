"""Generated from proto/swarm/wire/v1 by scripts/generate-wire. Imported by swarm.wire and swarm.rpc only."""
