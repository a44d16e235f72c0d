"""What the options of `swarm node start` come to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner

from node import cli
from node.cli_events import tell
from node.cli_running import show
from node.config import NodeConfig
from node.notes import Note
from swarm.errors import BadArgument

MAGNET = "magnet:?xt=urn:btih:" + "ab" * 20


def config_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *options: str) -> NodeConfig:
    told: list[NodeConfig] = []

    async def serve(config: NodeConfig, as_json: bool) -> None:
        told.append(config)

    monkeypatch.setattr(cli, "_serve", serve)
    arguments = ["start", MAGNET, "--data-dir", str(tmp_path), *options]
    CliRunner().invoke(cli.node, arguments, catch_exceptions=False)
    return told[0]


@pytest.mark.parametrize(
    ("options", "profile", "exact"),
    [
        ((), "bf16", None),
        (("--dtype", "fp32"), "fp32", None),
        (("--quantize", "int8"), "bf16-int8", None),
        (("--quantize", "int4", "--profile", "fast"), "bf16-int4", False),
        (("--quantize", "int8", "--profile", "exact"), "bf16-int8", True),
    ],
    ids=str,
)
def test_numerics(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: tuple[str, ...], profile: str, exact: bool | None
) -> None:
    config = config_of(monkeypatch, tmp_path, *options)
    assert (str(config.profile), config.exact) == (profile, exact)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("0", 0),
        ("8000000000", 8_000_000_000),
        ("8GB", 8_000_000_000),
        ("8g", 8_000_000_000),
        ("1.5 GiB", 3 << 29),
        ("512MiB", 512 << 20),
        ("2kB", 2000),
        ("7B", 7),
    ],
)
def test_sizes_have_units(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, n_bytes: int) -> None:
    config = config_of(monkeypatch, tmp_path, "--memory", text, "--disk", text, "--upload-rate", text)
    assert (config.memory_bytes, config.disk_bytes, config.upload_rate) == (n_bytes, n_bytes, n_bytes)


@pytest.mark.parametrize(
    ("option", "text", "rate"),
    [("--upload-rate", "2M/s", 2_000_000), ("--relay", "4MB/s", 4_000_000), ("--relay", "off", 0)],
)
def test_rates_are_a_second_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str, text: str, rate: int
) -> None:
    config = config_of(monkeypatch, tmp_path, option, text)
    assert (config.relay_rate if option == "--relay" else config.upload_rate) == rate


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--memory", "8XB"),
        ("--memory", "-1"),
        ("--memory", "8 i"),
        ("--disk", "1e9"),
        ("--memory", "2M/s"),
        ("--relay", "0"),
    ],
)
def test_what_is_no_size_is_refused(tmp_path: Path, option: str, text: str) -> None:
    ran = CliRunner().invoke(cli.node, ["start", MAGNET, "--data-dir", str(tmp_path), option, text])
    assert ran.exit_code == 2 and "Invalid value" in ran.output


def test_only_bf16_is_quantised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="fp32-int8"):
        config_of(monkeypatch, tmp_path, "--dtype", "fp32", "--quantize", "int8")


@pytest.mark.parametrize(
    ("event", "fields", "words"),
    [
        ("serving", {"is_all": False}, "while the rest comes"),
        ("serving", {"is_all": True}, ""),
        ("sharing", {"uploaded_bytes": 2000}, "gave 2.00 kB to 2 peers"),
        ("sharing", {"uploaded_bytes": 0}, ""),
    ],
)
def test_it_tells_of_the_rest_and_of_gifts_only_where_there_are_any(
    capsys: pytest.CaptureFixture[str], event: str, fields: dict[str, object], words: str
) -> None:
    known = {"loaded_spans": ["0:2"], "address": "127.0.0.1:7000", "share_ratio": None, "n_peers": 2, "upload_rate": 0}
    tell(event, {**known, **fields})
    told = capsys.readouterr().err
    assert words in told and bool(words) == bool(told)


def test_status_shows_what_a_host_of_experts_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    note = Note(
        pid=1, started_s=0.0, node_id="a" * 52, name="fake", infohash="b" * 40, state="serving",
        address="127.0.0.1:7000", profile="bf16", spans=(), loaded_spans=(), trunks=("0:2",), experts=("0-1:3",),
        n_sessions=0, free_sessions=0, cache_bytes=0, needed_bytes=2000, have_bytes=2000, fetched_bytes=0,
        uploaded_bytes=0, share_ratio=None, drain_ends_s=None, version="",
    )  # fmt: skip
    show([note])
    told = capsys.readouterr().out
    assert "trunk 0:2 experts 0-1:3" in told
    assert "0 (0 more)" in told
    assert "0 B, has 100% of what it needs" in told, "all of it was here"
    show([dataclasses.replace(note, trunks=())])
    assert " - " in (alone := capsys.readouterr().out) and "more" not in alone, "no session comes to it"
