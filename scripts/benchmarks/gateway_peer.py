"""The Python client behind a bare socket: the gateway's peer. `python -m benchmarks.gateway_peer MAGNET FOLDER [PEER]`.

Reads one request off each connection, runs AsyncClient.stream for it and writes one line for each token that has text,
then the usage. It checks and accounts for nothing: what a program that embeds the client would do, with a line written
where it would use the token.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from swarm import SamplingParams, connect_async


async def main(magnet: str, data_dir: Path, peers: list[str]) -> None:
    async with connect_async(magnet, network="loopback", data_dir=data_dir, peers=peers) as client:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            n_bytes = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")
            )
            asked = json.loads(await reader.readexactly(n_bytes))
            params = SamplingParams(max_tokens=asked["max_tokens"], temperature=1.0, seed=asked["seed"])
            async with client.stream(asked["prompt"], params) as generation:
                async for token in generation:
                    if token.text:
                        writer.write(b'{"finish_reason":null}\n')
            usage = {"completion_tokens": generation.result.usage.completion_tokens}
            writer.write(json.dumps(usage, separators=(",", ":")).encode() + b"\n")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        await client.status()
        port = server.sockets[0].getsockname()[1]
        print(json.dumps({"event": "listening", "url": f"http://127.0.0.1:{port}"}), flush=True)
        async with server:
            await server.serve_forever()


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
