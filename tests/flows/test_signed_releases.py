"""What a publisher signs is what nodes load: signed and forged releases, licences, the fused layout, end to end."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from swarm.cli.release import release as release_command
from swarm.client.admission import Admission
from swarm.errors import CorruptRelease, LicenceNotAccepted
from swarm.identity import Keyring, NodeKey
from swarm.sampling import SamplingParams

PROMPT = list(range(5, 25))
GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring(tmp_path / "keys")
    made.new("alice")
    return made


@pytest.fixture
def signed(release: Callable[..., Path], keyring: Keyring, tmp_path: Path) -> Path:
    """A release of ours, signed by alice."""
    folder = tmp_path / "signed-mixtral"
    shutil.copytree(release("tiny-mixtral"), folder)
    sign(folder, keyring)
    return folder


def sign(folder: Path, keyring: Keyring) -> None:
    arguments = ["sign", str(folder), "--key", "alice", "--keys-dir", str(keyring.folder)]
    CliRunner().invoke(release_command, arguments, catch_exceptions=False)


async def test_a_signed_release_is_served_and_used(
    signed: Path, keyring: Keyring, local_swarm: Callable[[Path], Any]
) -> None:
    alice = keyring.find("alice")
    swarm = local_swarm(signed)
    await swarm.publish(16 << 10)
    node = await swarm.start("0:6", admission=Admission(publishers=frozenset({alice}), trusted=keyring.known()))
    said = node.events["provenance"][-1]
    assert said["signer"] == alice
    assert said["licence"] == "apache-2.0"
    assert "alice" in str(said["words"])
    assert str(said["words"]).endswith("as signed-mixtral"), "a torrent may be named otherwise"
    async with swarm.client(publishers=[alice]) as client:
        assert len((await client.generate(PROMPT, GREEDY)).ids) == 8
    with pytest.raises(CorruptRelease, match="--publisher asks for"):
        async with swarm.client(publishers=[NodeKey.generate().node_id]):
            pass


async def test_a_gateway_opens_only_its_publishers_release(
    signed: Path, keyring: Keyring, local_swarm: Callable[[Path], Any], tmp_path: Path
) -> None:
    from swarm.gateway import GatewayConfig
    from swarm.gateway.models import ModelRegistry

    swarm = local_swarm(signed)
    magnet = await swarm.publish(16 << 10)

    def registry(publisher: str) -> ModelRegistry:
        data_dir = tmp_path / publisher
        config = GatewayConfig((magnet,), network="loopback", data_dir=data_dir, publishers=(publisher,))
        return ModelRegistry(config)

    async with asyncio.timeout(60):
        async with registry(keyring.find("alice")) as opened:
            await opened.wait_open()
            assert [model.name for model in opened.models] == ["signed-mixtral"]
        async with registry(NodeKey.generate().node_id) as refused:
            while "--publisher asks for" not in (await refused.readiness())[0].problem:
                await asyncio.sleep(0.05)
            assert refused.models == ()


async def test_an_unsigned_release_says_so_and_is_not_a_publishers(
    release: Callable[..., Path], keyring: Keyring, local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish(16 << 10)
    node = await swarm.start("0:1")
    assert node.events["provenance"][-1]["words"] == "unsigned: known by its infohash alone"
    strict = Admission(publishers=frozenset({keyring.find("alice")}))
    with pytest.raises(CorruptRelease, match="signed by nobody, and --publisher asks for"):
        await swarm.start("0:1", admission=strict)


async def test_another_publishers_release_is_refused(signed: Path, local_swarm: Callable[[Path], Any]) -> None:
    swarm = local_swarm(signed)
    await swarm.publish(16 << 10)
    stranger = NodeKey.generate().node_id
    node = await swarm.start("0:6", wait=False, admission=Admission(publishers=frozenset({stranger})))
    with pytest.raises(CorruptRelease, match="--publisher asks for"):
        await node.event("ready")
    assert "progress" not in node.events, "no layer was asked for"


def change_config(folder: Path) -> None:
    """The same size, another function."""
    text = (folder / "config.json").read_text()
    assert '"rms_norm_eps": 1e-05' in text
    (folder / "config.json").write_text(text.replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": 3e-05'))


def swap_tensors(folder: Path) -> None:
    """Two experts' matrices change places in a shard's head; the file's size and its data stay as they are."""
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    data = shard.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    one, other = (f"model.layers.0.block_sparse_moe.experts.{i}.w1.weight" for i in (0, 1))
    head[one], head[other] = head[other], head[one]
    written = json.dumps(head, separators=(",", ":")).encode().ljust(size)
    assert len(written) == size
    shard.write_bytes(data[:8] + written + data[8 + size :])


def change_weights(folder: Path) -> None:
    """Other values in the same places."""
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    data[start:] = bytes(byte ^ 1 for byte in data[start:])
    shard.write_bytes(data)


def add_a_file(folder: Path) -> None:
    (folder / "tekken.json").write_text("{}")


def change_manifest(folder: Path) -> None:
    data = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(data.replace(b'"licence":"apache-2.0"', b'"licence":"apache-2.1"'))


def drop_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "config": (change_config, r"config\.json is not the file that was signed"),
    "places": (swap_tensors, "another dtype or place"),
    "a file more": (add_a_file, r"does not list 'tekken\.json'"),
    "manifest": (change_manifest, "does not sign this"),
    "no manifest": (drop_manifest, r"no manifest\.json"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_what_was_changed_after_signing_is_refused_before_a_weight_is_fetched(
    forgery: str, signed: Path, local_swarm: Callable[[Path], Any]
) -> None:
    """The forger publishes a torrent of their own: every piece of it verifies."""
    forge, message = FORGERIES[forgery]
    forge(signed)
    swarm = local_swarm(signed)
    await swarm.publish(16 << 10)
    node = await swarm.start("0:2", wait=False)
    with pytest.raises(CorruptRelease, match=message):
        await node.event("ready")
    assert "progress" not in node.events, "no layer was asked for"


async def test_weights_that_were_changed_after_signing_are_never_served(
    signed: Path, keyring: Keyring, local_swarm: Callable[[Path], Any]
) -> None:
    """Heads, sizes and small files stay as they were signed; the forger's own torrent hashes the other weights."""
    change_weights(signed)
    swarm = local_swarm(signed)
    await swarm.publish(16 << 10)
    admission = Admission(publishers=frozenset({keyring.find("alice")}), trusted=keyring.known())
    node = await swarm.start("0:6", wait=False, admission=admission)
    with pytest.raises(CorruptRelease, match="not what the release's publisher signed"):
        await node.event("ready")
    assert "serving" not in node.events


async def test_a_client_refuses_a_changed_config_too(
    signed: Path, release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    change_config(signed)
    swarm = local_swarm(signed)
    await swarm.publish(16 << 10)
    with pytest.raises(CorruptRelease, match="not the file that was signed"):
        async with swarm.client() as client:
            await client.generate(PROMPT, GREEDY)


async def test_a_research_licence_wants_a_word(
    release: Callable[..., Path], tmp_path: Path, local_swarm: Callable[[Path], Any]
) -> None:
    folder = tmp_path / "research"
    shutil.copytree(release("tiny-mixtral"), folder)
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: mrl\n---\n# weights\n")
    swarm = local_swarm(folder)
    await swarm.publish(16 << 10)
    with pytest.raises(LicenceNotAccepted, match="--accept-licence mrl"):
        await swarm.start("0:1")
    node = await swarm.start("0:1", admission=Admission(frozenset({"mrl"})))
    assert node.events["provenance"][-1]["licence"] == "mrl"


async def test_the_fused_layout_says_what_the_others_say(
    release: Callable[..., Path], tmp_path: Path, local_swarm: Callable[[Path], Any]
) -> None:
    answers = []
    for folder in (release("tiny-mixtral"), fused_copy(release("tiny-mixtral", "mistral-pth"), tmp_path / "fused")):
        swarm = local_swarm(folder)
        await swarm.publish(16 << 10)
        await asyncio.gather(swarm.start("0:2"), swarm.start("2:6"))
        async with swarm.client() as client:
            answers.append((await client.generate(PROMPT, GREEDY)).ids)
        await swarm.close()
    assert answers[0] == answers[1]


def fused_copy(source: Path, folder: Path) -> Path:
    """A release with a consolidated.00.pth as consolidated.00.pt to .02.pt, two layers in each."""
    folder.mkdir()
    shutil.copyfile(source / "params.json", folder / "params.json")
    tensors = torch.load(source / "consolidated.00.pth")
    files: list[dict[str, torch.Tensor]] = [{}, {}, {}]
    for name, tensor in tensors.items():
        layer = name.split(".")[1] if name.startswith("layers.") else ""
        file = files[int(layer) // 2 if layer else 0 if name == "tok_embeddings.weight" else 2]
        if ".experts." not in name:
            file[name.replace("feed_forward.gate", "block_sparse_moe.gate")] = tensor
            continue
        matrix = name.split(".")[-2]
        fused = f"layers.{layer}.block_sparse_moe.{matrix}"
        part = tensor.T if matrix == "w2" else tensor
        file[fused] = torch.cat((file[fused], part)) if fused in file else part.contiguous()
    for i, tensors_of_file in enumerate(files):
        torch.save(tensors_of_file, folder / f"consolidated.{i:02}.pt")
    return folder
