"""The bytes flow: from one magnet a node fetches only what it hosts, verified, keeps it, and passes it on."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import BadArgument, TransferStalled
from swarm.sampling import SamplingParams
from swarm.terms import Address
from swarm.torrent import Magnet, TorrentConfig, TorrentSession

PROMPT = list(range(5, 25))
GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)


@pytest.mark.parametrize("piece_size", [256 << 10, 1 << 20])
async def test_a_quarter_of_the_layers_costs_little_more_than_a_quarter_of_the_bytes(
    piece_size: int, release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("24-layer", dtype="bf16"))
    await swarm.publish(piece_size)
    node = await swarm.start("6:12")
    ready = await node.event("ready")
    needed, fetched, whole = ready["needed_bytes"], ready["fetched_bytes"], ready["release_bytes"]
    assert needed < 0.3 * whole
    assert needed <= fetched <= 1.10 * needed, f"fetched {fetched} for {needed} needed bytes: {fetched / needed:.3f}"


async def test_a_restarted_node_fetches_nothing_again(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish(16 << 10)
    first = await swarm.start("0:6", data_dir=swarm.work_dir / "kept")
    assert (await first.event("ready"))["fetched_bytes"] > 0
    await first.stop()
    await swarm.stop_seeding()  # nobody is left to fetch from
    again = await swarm.start("0:6", data_dir=swarm.work_dir / "kept")
    assert (await again.event("ready"))["fetched_bytes"] == 0
    async with swarm.client(peers=[again.events["ready"][-1]["address"]]) as client:
        assert len((await client.generate(PROMPT, GREEDY)).ids) == 8


async def test_what_nodes_host_is_enough_to_found_a_third_when_the_origin_is_gone(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish(16 << 10)
    a, _ = await asyncio.gather(swarm.start("0:3"), swarm.start("3:6"))
    address = str((await a.event("ready"))["address"])
    await swarm.stop_seeding()
    third = await swarm.start("0:6", peers=(Address.parse(address),))
    ready = await third.event("ready")
    assert ready["fetched_bytes"] >= ready["needed_bytes"]


async def test_changing_the_hosted_layers_fetches_only_the_difference(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("24-layer", dtype="bf16"))
    await swarm.publish()
    first = await swarm.start("4:8", data_dir=swarm.work_dir / "kept")
    await first.event("ready")
    await first.stop()
    second = await swarm.start("4:10", data_dir=swarm.work_dir / "kept")
    ready = await second.event("ready")
    two_layers = ready["needed_bytes"] / 6 * 2
    assert 0.5 * two_layers < ready["fetched_bytes"] < 1.25 * two_layers


async def listening(port: int) -> None:
    """Return once somebody listens there: a peer that refused is not dialled again for a minute."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        await writer.wait_closed()
        return


@pytest.mark.skipif(shutil.which("aria2c") is None, reason="aria2c is not installed")
async def test_a_foreign_client_takes_the_release_from_us_and_is_then_our_only_seed(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any], tmp_path: Path
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish(16 << 10)
    theirs = tmp_path / "aria2"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torrent_file = tmp_path / "release.torrent"
    torrent_file.write_bytes(swarm.torrent.data)
    origin = Magnet.parse(swarm.magnet).peers[0]
    aria2 = await asyncio.create_subprocess_exec(
        "aria2c", f"--dir={theirs}", f"--listen-port={port}", "--interface=127.0.0.1", "--enable-dht=false",
        "--enable-dht6=false", "--bt-enable-lpd=false", "--seed-ratio=0.0", "--follow-torrent=mem",
        "--check-integrity=true", "--allow-overwrite=true", "--no-conf=true", str(torrent_file),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            await listening(port)
            while not all(
                (theirs / swarm.folder.name / path.name).is_file()
                and (theirs / swarm.folder.name / path.name).read_bytes() == path.read_bytes()
                for path in swarm.folder.iterdir()
            ):
                swarm.seeding.add_peers([Address("127.0.0.1", port)])  # no tracker introduces them
                await asyncio.sleep(0.2)
        await swarm.stop_seeding()
        assert origin.port != port
        swarm.magnet = str(swarm.torrent.magnet(peers=(Address("127.0.0.1", port),)))
        node = await swarm.start("0:6")
        async with swarm.client(peers=[str((await node.event("ready"))["address"])]) as client:
            assert len((await client.generate(PROMPT, GREEDY)).ids) == 8
    finally:
        aria2.kill()
        await aria2.wait()


async def test_nothing_is_loaded_from_a_seeder_whose_bytes_differ(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any], tmp_path: Path
) -> None:
    """The only seeder tells the truth about the layout and lies about every weight: the node begins, and never serves.

    Of each shard only the pieces that lie wholly beyond its head and belong to it alone differ from what the torrent
    says.
    """
    piece_size = 16 << 10
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish(piece_size)
    await swarm.stop_seeding()
    poisoned = tmp_path / swarm.folder.name
    shutil.copytree(swarm.folder, poisoned)
    async with TorrentSession(TorrentConfig.loopback()) as liar:
        await liar.seed(swarm.torrent, tmp_path)  # it has hashed what it is about to change
        # Once banned it could dial the node from another port, again and again: on loopback a ban holds for a port.
        liar._session.apply_settings({"connection_speed": 0})
        for shard in poisoned.glob("*.safetensors"):
            data = bytearray(shard.read_bytes())
            offset = swarm.torrent.entry(shard.name).offset
            head_ends_at, shard_ends_at = offset + 8 + int.from_bytes(data[:8], "little"), offset + len(data)
            start = head_ends_at + -head_ends_at % piece_size - offset
            end = shard_ends_at - shard_ends_at % piece_size - offset
            assert end - start > 0.9 * len(data)
            data[start:end] = bytes(255 - byte for byte in data[start:end])
            with shard.open("r+b") as file:
                file.write(data)
        swarm.magnet = str(swarm.torrent.magnet(peers=(Address("127.0.0.1", liar.port),)))
        node = await swarm.start("0:6", wait=False, stall_timeout_s=5.0)
        with pytest.raises(TransferStalled, match=f"pieces came with wrong bytes.*127.0.0.1:{liar.port}"):
            await node.event("ready")
    assert "layout" in node.events, "the heads verified: what failed are the weights"
    progress = node.events["progress"]
    assert {event["layers_loaded"] for event in progress} == {0}
    assert progress[-1]["layers_total"] == 6


async def test_what_is_hosted_no_longer_goes_when_the_disk_is_bounded(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish(piece_size=16 << 10)
    first = await swarm.start("0:4")
    kept_bytes = (await first.event("ready"))["have_bytes"] + (64 << 10)
    await first.stop()
    uploaded = (await swarm.seeding.refresh()).uploaded_bytes
    folder = first.config.data_dir
    second = await swarm.start("2:6", data_dir=folder, disk_bytes=kept_bytes)
    after = await second.event("ready")
    came = (await swarm.seeding.refresh()).uploaded_bytes - uploaded
    assert 0 < came <= 0.7 * after["planned_bytes"], "layers 2 and 3 were there"
    assert after["planned_bytes"] <= after["have_bytes"] <= kept_bytes
    on_disk = sum(path.stat().st_blocks * 512 for path in folder.rglob("*.safetensors"))
    assert on_disk <= kept_bytes + (256 << 10)  # holes are made of whole blocks
    await second.stop()
    third = await swarm.start("2:6", data_dir=folder, wait=False, disk_bytes=1000)
    with pytest.raises(BadArgument, match="--disk allows 1000"):
        await third.task
