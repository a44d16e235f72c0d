"""Nodes that die under a generation: it goes on elsewhere, or waits for a replacement, and its tokens are the same."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import LayersUncovered
from swarm.sampling import SamplingParams
from swarm.terms import Address

LOOPBACK = ("--network", "loopback")
PROMPT = [(7 * i) % 500 + 3 for i in range(60)]
GREEDY = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True)
SEEDED = SamplingParams(max_tokens=40, temperature=0.9, top_p=0.9, seed=17, ignore_eos=True)
SPLIT = ("0:2", "2:4", "4:6")


async def settled(swarm: Any, others: tuple[str, ...], victim: Any, victim_span: str) -> tuple[str, list[str]]:
    """Start the others here while the victim comes up. -> the victim's node id, and whom to ask."""
    nodes = await asyncio.gather(*(swarm.start(span) for span in others))
    ready = await asyncio.to_thread(victim.wait_for, "ready", 60.0)
    assert ready["spans"] == [victim_span]
    return victim.events[0]["node_id"], [str(node.events["ready"][-1]["address"]) for node in nodes]


def victim_of(cli: Any, swarm: Any, span: str, name: str = "victim") -> Any:
    peer = ("--peer", Address("127.0.0.1", 9))
    return cli.node(swarm.magnet, name, "--layers", span, "--dtype", "fp32", *peer)


@pytest.mark.parametrize("killed", [0, 1, 2])
async def test_a_killed_stage_is_replaced_and_the_tokens_are_the_same(
    cli: Any, release: Callable[..., Path], local_swarm: Callable[[Path], Any], killed: int
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    victim = victim_of(cli, swarm, SPLIT[killed])
    others = tuple(span for span in SPLIT if span != SPLIT[killed])
    victim_id, peers = await settled(swarm, others, victim, SPLIT[killed])
    async with swarm.client(peers=[*peers, victim.events[-1]["address"]]) as client:
        undisturbed = [(await client.generate(PROMPT, params)).ids for params in (GREEDY, SEEDED)]
        streams = [client.stream(PROMPT, params) for params in (GREEDY, SEEDED)]
        seen: list[list[int]] = [[], []]
        for stream, ids in zip(streams, seen, strict=True):
            while len(ids) < 10:
                ids.append((await anext(stream)).id)
        spare = await swarm.start(SPLIT[killed], peers=(Address.parse(peers[0]),))
        victim.signal(signal.SIGKILL)
        for stream, ids in zip(streams, seen, strict=True):
            ids.extend([event.id async for event in stream])
            before = stream.result
            assert before.timings.n_replays >= 1
            assert victim_id not in [hop.node_id for hop in before.route.hops]
            assert spare.events["started"][-1]["node_id"] == before.route.hops[killed].node_id
        assert [tuple(ids) for ids in seen] == undisturbed
        assert victim.status() == -signal.SIGKILL


async def test_without_a_spare_the_client_waits_and_goes_on_by_itself(
    cli: Any, release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    victim = victim_of(cli, swarm, "2:4")
    _, peers = await settled(swarm, ("0:2", "4:6"), victim, "2:4")
    async with swarm.client(peers=peers, timeout_s=30.0) as client:
        undisturbed = (await client.generate(PROMPT, GREEDY)).ids
        async with client.stream(PROMPT, GREEDY) as stream:
            seen = [(await anext(stream)).id for _ in range(10)]
            victim.signal(signal.SIGKILL)
            victim.status()
            rest = asyncio.create_task(anext(stream))
            # The same node comes back, at another port, to what it had on disk.
            replacement = victim_of(cli, swarm, "2:4")
            ready = await asyncio.to_thread(replacement.wait_for, "ready", 60.0)
            assert ready["fetched_bytes"] == 0
            assert replacement.events[0]["node_id"] == victim.events[0]["node_id"]
            seen.append((await rest).id)
            seen.extend([event.id async for event in stream])
            assert stream.result.timings.n_replays >= 1
        assert tuple(seen) == undisturbed
    async with swarm.client(peers=peers, timeout_s=2.0) as client:
        async with client.stream(PROMPT, GREEDY) as stream:
            await anext(stream)
            replacement.signal(signal.SIGKILL)
            with pytest.raises(
                LayersUncovered, match=r"layers 2:4 of 6 have no node.*swarm node start MAGNET --layers"
            ) as caught:
                async for _ in stream:
                    pass
            assert caught.value.layers == (2, 3)


def test_at_the_command_line_a_killed_node_is_a_few_words_on_stderr(cli: Any, seeded: str, tmp_path: Path) -> None:
    nodes = [cli.node(seeded, name, "--layers", "0:6", "--dtype", "fp32") for name in ("one", "other")]
    peers = [word for node in nodes for word in ("--peer", node.wait_for("ready", 60.0)["address"])]
    asked = ("--max-tokens", 120, "--seed", 3, "--temperature", 1, "--ignore-eos", "--timeout", 20)
    command = ("generate", seeded, "hello", *LOOPBACK, "--data-dir", tmp_path / "client", *peers, *asked)
    generating = cli.start(*command)
    token = generating.wait_until(lambda event: event.get("index") == 20)
    serving = token["hop_times"][0]["node_id"]
    doomed, spare = sorted(nodes, key=lambda node: node.events[0]["node_id"] != serving)
    doomed.signal(signal.SIGKILL)
    assert generating.status() == 0, generating.stderr()
    said = generating.stderr().splitlines()
    assert said, "the user is told"
    assert any(f"node {serving[:8]} was lost; going on after " in line for line in said), said
    assert all(line.startswith(("node ", "waiting up to ")) for line in said), said
    assert all(line.count(serving[:8]) <= 1 for line in said), "it is named once"
    done = generating.events[-1]
    assert done["timings"]["n_replays"] >= 1
    assert [hop["node_id"] for hop in done["route"]["hops"]] == [spare.events[0]["node_id"]]
    again = cli.run(*command, "--json")
    assert again.returncode == 0, again.stderr
    assert done["ids"] == json.loads(again.stdout.splitlines()[-1])["ids"]
