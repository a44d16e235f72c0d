"""What the options of `swarm node start` come to."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from node import cli
from node.config import NodeConfig
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
