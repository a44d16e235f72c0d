"""Nodes that are told to stop under load: their sessions end, or go on elsewhere, and no token is lost or changed."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm.client import connect_async
from swarm.sampling import SamplingParams
from swarm.terms import Address

PROMPT = [(7 * i) % 500 + 3 for i in range(60)]
N_STREAMS = 6


def params(nth: int) -> SamplingParams:
    if nth % 2:
        return SamplingParams(max_tokens=60, temperature=0.9, top_p=0.9, seed=nth, ignore_eos=True)
    return SamplingParams(max_tokens=60, temperature=0.0, ignore_eos=True)


async def test_sigterm_under_load_changes_no_token_and_new_sessions_go_elsewhere(
    cli: Any, release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    where = ("--layers", "0:3", "--dtype", "fp32", "--drain-timeout", 0.2, "--peer", Address("127.0.0.1", 9))
    leaving = cli.node(swarm.magnet, "leaving", *where)
    last = await swarm.start("3:6")
    ready = await asyncio.to_thread(leaving.wait_for, "ready", 60.0)
    peers = [str(last.events["ready"][-1]["address"]), ready["address"]]
    async with swarm.client(peers=peers) as client:
        expected = [(await client.generate(PROMPT[nth:], params(nth))).ids for nth in range(N_STREAMS)]
        spare = await swarm.start("0:3", peers=(Address.parse(peers[0]),))
        streams = [client.stream(PROMPT[nth:], params(nth)) for nth in range(N_STREAMS)]
        seen = [[(await anext(stream)).id] for stream in streams]
        leaving_id = leaving.events[0]["node_id"]
        on_it = [stream.result.route.hops[0].node_id == leaving_id for stream in streams]
        leaving.signal(signal.SIGTERM)
        draining = await asyncio.to_thread(leaving.wait_for, "draining", 20.0)
        assert draining["sessions"] == sum(on_it)
        fresh = await client.generate(PROMPT, params(1))

        async def rest(stream: Any, ids: list[int]) -> None:
            ids.extend([event.id async for event in stream])

        await asyncio.gather(*(rest(stream, ids) for stream, ids in zip(streams, seen, strict=True)))
        assert [tuple(ids) for ids in seen] == expected
        spare_id = spare.events["started"][-1]["node_id"]
        for stream, moves in zip(streams, on_it, strict=True):
            if moves:
                assert stream.result.timings.n_replays >= 1
                assert stream.result.route.hops[0].node_id == spare_id
        assert fresh.route.hops[0].node_id == spare_id
        assert await asyncio.to_thread(leaving.status) == 0
        handed = next(event for event in leaving.events if event["event"] == "handing_over")
        assert handed["sessions"] == sum(on_it) >= 1
        assert "Traceback" not in leaving.stderr()


async def test_nodes_are_shown_and_stopped_from_another_terminal(cli: Any, seeded: str, tmp_path: Path) -> None:
    one, other = (cli.node(seeded, "shared", "--layers", "0:6", "--dtype", "fp32") for _ in range(2))
    addresses = {(await asyncio.to_thread(node.wait_for, "ready", 60.0))["address"] for node in (one, other)}
    data_dir = ("--data-dir", tmp_path / "shared")

    async def run(*arguments: object) -> Any:
        return await asyncio.to_thread(cli.run, "node", *arguments)

    async def shown() -> dict[str, Any]:
        ran = await run("status", *data_dir, "--json")
        assert ran.returncode == 0, ran.stderr
        return {node["address"]: node for node in json.loads(ran.stdout)["nodes"]}

    nodes = await shown()
    assert set(nodes) == addresses
    assert {node["pid"] for node in nodes.values()} == {one.pid, other.pid}
    for node in nodes.values():
        assert (node["state"], node["n_sessions"], node["drain_left_s"]) == ("serving", 0, None)
        assert (node["name"], node["spans"], node["loaded_spans"]) == ("wordy", ["0:6"], ["0:6"])
    table = (await run("status", *data_dir)).stdout
    assert all(address in table for address in addresses), table
    nobody = await run("stop", "nobody", *data_dir)
    assert nobody.returncode == 2 and "runs here" in nobody.stderr

    async with connect_async(
        seeded, network="loopback", data_dir=tmp_path / "client", timeout_s=20.0, peers=sorted(addresses)
    ) as client:
        expected = (await client.generate(PROMPT, params(1))).ids
        async with client.stream(PROMPT, params(1)) as stream:
            seen = [(await anext(stream)).id for _ in range(5)]
            serving_id = stream.result.route.hops[0].node_id
            leaving = next(node for node in (one, other) if node.events[0]["node_id"] == serving_id)
            stopped = await run("stop", serving_id[:10], *data_dir, "--now")
            assert stopped.returncode == 0 and "stopped 1 node" in stopped.stderr, stopped.stderr
            assert await asyncio.to_thread(leaving.status) == 0
            handed = [event["sessions"] for event in leaving.events if event["event"] == "handing_over"]
            assert handed == [1]
            seen += [event.id async for event in stream]
            assert tuple(seen) == expected
            assert stream.result.timings.n_replays == 1
    assert len(await shown()) == 1
    assert (await run("stop", *data_dir)).returncode == 0
    assert await shown() == {}
    assert "no node runs here" in (await run("status", *data_dir)).stderr
