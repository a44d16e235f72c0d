"""What the options of `swarm node start` come to."""

from __future__ import annotations

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
        n_sessions=0, free_sessions=0, cache_bytes=0, needed_bytes=0, fetched_bytes=0, uploaded_bytes=0,
        share_ratio=None, drain_ends_s=None, version="",
    )  # fmt: skip
    show([note])
    assert "trunk 0:2 experts 0-1:3" in capsys.readouterr().out
