"""Defaults for flags: flags win over the environment, which wins over the file; nothing in it is ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from swarm.cli import main as root
from swarm.cli.config import defaults_from_toml, load_defaults
from swarm.cli.generation import sampling_options
from swarm.cli.options import Reach, node_options, timeout_option
from swarm.errors import BadArgument
from swarm.terms import Address


def test_a_whole_file_reaches_every_verb_that_has_the_flag() -> None:
    text = b"""
        network = "lan"
        bootstrap = ["198.51.100.7:6881"]
        peer = ["198.51.100.8:1"]
        timeout_s = 90
        data_dir = "/srv/swarm"
        [generate]
        max_tokens = 5
        temperature = 0
    """
    shared = {
        "network": "lan",
        "bootstrap": ["198.51.100.7:6881"],
        "peers": ["198.51.100.8:1"],
        "timeout_s": 90,
        "data_dir": "/srv/swarm",
    }
    defaults = defaults_from_toml(text, "config.toml")
    assert defaults["generate"] == defaults["chat"] == {**shared, "max_tokens": 5, "temperature": 0}
    assert defaults["status"] == defaults["top"] == defaults["node"]["start"] == shared
    # A peer here is a node, which --torrent-peer never means.
    bytes_only = {name: shared[name] for name in ("network", "bootstrap", "timeout_s")}
    assert defaults["release"]["seed"] == defaults["release"]["inspect"] == bytes_only


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("netwrok = 'lan'", "netwrok"),
        ("network = 3", "network must be a string"),
        ("bootstrap = '1.2.3.4:5'", "bootstrap must be a list"),
        ("bootstrap = [1]", "bootstrap must be a list"),
        ("network = ['lan']", "network must be a string"),
        ("timeout_s = true", "timeout_s must be a number"),
        ("[generate]\nheat = 1", "generate.heat"),
        ("[generate]\ntop_k = 1.5", "generate.top_k must be a whole number"),
        ("generate = 1", "[generate]"),
        ("[sampling]\nseed = 1", "sampling"),
        ("network = ", "not TOML"),
    ],
)
def test_what_the_file_may_not_say_is_an_error_that_names_it(text: str, named: str) -> None:
    with pytest.raises(BadArgument, match=r"config\.toml") as raised:
        defaults_from_toml(text.encode(), "config.toml")
    assert named in raised.value.message


def test_no_file_is_no_defaults_but_a_named_one_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.cli.config.default_path", lambda: tmp_path / "none.toml")
    assert load_defaults(None) == {}
    with pytest.raises(BadArgument, match="no config file"):
        load_defaults(tmp_path / "none.toml")


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for `swarm generate` and keeps what it was called with."""
    seen: dict[str, Any] = {}

    @click.command("generate")
    @sampling_options
    @node_options
    @timeout_option(60.0, "How long to wait.")
    def command(sampling: dict[str, Any], reach: Reach, timeout_s: float) -> None:
        seen.update(sampling=sampling, reach=reach, timeout_s=timeout_s)

    monkeypatch.setattr(root.VerbGroup, "get_command", lambda self, ctx, name: command)
    for name in (
        "SWARM_NETWORK",
        "SWARM_BOOTSTRAP",
        "SWARM_PEER",
        "SWARM_TIMEOUT",
        "SWARM_TEMPERATURE",
        "SWARM_CONFIG",
    ):
        monkeypatch.delenv(name, raising=False)
    return seen


def run(*args: str, config: Path | None = None, **env: str) -> None:
    first = () if config is None else ("--config", str(config))
    result = CliRunner(env=env).invoke(root.cli, [*first, "generate", *args])
    assert result.exit_code == 0, result.stderr


def test_flags_win_over_the_environment_and_that_over_the_file(probe: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('network = "lan"\ntimeout_s = 5\nbootstrap = ["127.0.0.1:1"]\n[generate]\ntemperature = 0.5\n')
    run(config=config)
    assert probe["reach"] == Reach("lan", (Address("127.0.0.1", 1),))
    assert probe["timeout_s"] == 5
    assert probe["sampling"] == {"temperature": 0.5}
    env = {"SWARM_NETWORK": "loopback", "SWARM_BOOTSTRAP": "127.0.0.1:2 127.0.0.1:3", "SWARM_TEMPERATURE": "0.25"}
    run(config=config, **env)
    assert probe["reach"] == Reach("loopback", (Address("127.0.0.1", 2), Address("127.0.0.1", 3)))
    assert probe["sampling"] == {"temperature": 0.25}
    run("--network", "wan", "--bootstrap", "127.0.0.1:4", "--temperature", "0", config=config, **env)
    assert probe["reach"] == Reach("wan", (Address("127.0.0.1", 4),))
    assert probe["sampling"] == {"temperature": 0.0}


def test_without_any_of_them_sampling_keeps_the_clients_own_defaults(probe: dict[str, Any]) -> None:
    run()
    assert (probe["sampling"], probe["reach"], probe["timeout_s"]) == ({}, Reach("wan"), 60.0)


@pytest.mark.parametrize(
    "bad", [("--network", "moon"), ("--bootstrap", "nowhere"), ("--timeout", "0"), ("--peer", "a:b")]
)
def test_impossible_values_are_usage_errors(probe: dict[str, Any], bad: tuple[str, str]) -> None:
    result = CliRunner().invoke(root.cli, ["generate", *bad])
    assert result.exit_code == 2
    assert bad[0] in result.stderr
    assert probe == {}
