"""`swarm usage` and `swarm gateway-keys`: what people and programs read, over a ledger and a key file that are real."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from swarm.cli.main import cli
from swarm.gateway.operations.keys import Caller, KeyStore
from swarm.gateway.operations.ledger import Ledger, NodeShare, UsageEntry
from swarm.terms import NodeId

DAY_S = 86_400.0
A, B = NodeId("a" * 52), NodeId("b" * 52)
PRICES = 'currency = "EUR"\n[models.m]\ninput_per_million = 1000\noutput_per_million = 2000.5\n'


def run(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="swarm")
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Alice, twice: today by two nodes, and 40 days ago by none; and someone whose model has a formula for a name."""
    file = tmp_path / "usage.sqlite"
    ledger, now_s = Ledger(file), time.time()
    shares = (NodeShare(A, 2, 6, 1.5), NodeShare(B, 2, 2, 0.5))
    for key, model, finished_s, nodes in (
        ("alice", "m", now_s, shares),
        ("alice", "m", now_s - 40 * DAY_S, ()),
        ("bob", "=1+1", now_s, ()),
    ):
        ledger.record(UsageEntry("r", key, model, "/v1/completions", 1000, 2000, 0.0, finished_s, "stop", nodes))
    ledger.close()
    return file


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    file = tmp_path / "prices.toml"
    file.write_text(PRICES)
    return file


def usage_json(*args: object) -> dict[str, Any]:
    status, out, err = run("usage", "--json", *args)
    assert status == 0, err
    return json.loads(out)


def test_a_table_for_people(file: Path, prices: Path) -> None:
    status, out, err = run("usage", "--ledger", file, "--prices", prices)
    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert lines == [
        ["key", "requests", "tokens", "in", "tokens", "out", "EUR"],
        ["alice", "2", "2,000", "4,000", "10.00"],
        ["bob", "1", "1,000", "2,000", "-"],
        ["total", "3", "3,000", "6,000", "10.00"],
    ]
    assert "no price for =1+1" in err


def test_by_node(file: Path) -> None:
    _, out, _ = run("usage", "--ledger", file, "--by", "node", "--since", "7d")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert rows["aaaaaaaa"] == ["1", "750", "1,500", "1.5", "s"]
    assert rows["bbbbbbbb"] == ["1", "250", "500", "0.5", "s"]
    assert rows["(none)"] == ["1", "1,000", "2,000", "0.0", "s"]
    assert rows["total"] == ["2", "2,000", "4,000", "2.0", "s"]


def test_json_for_programs(file: Path, prices: Path) -> None:
    answer = usage_json("--ledger", file, "--prices", prices, "--by", "key", "--by", "model", "--since", "7d")
    assert answer["schema"] == "swarm.usage/1"
    assert (answer["by"], answer["currency"], answer["unpriced"]) == (["key", "model"], "EUR", ["=1+1"])
    assert answer["rows"] == [
        {"key": "alice", "model": "m", "requests": 1, "tokens_in": 1000, "tokens_out": 2000, "cost": "5.001000"},
        {"key": "bob", "model": "=1+1", "requests": 1, "tokens_in": 1000, "tokens_out": 2000, "cost": None},
    ]
    assert answer["total"] == {"requests": 2, "tokens_in": 2000, "tokens_out": 4000, "cost": "5.001000"}
    assert answer["since"] is not None and answer["until"] is None


def test_csv_for_spreadsheets_holds_no_formula(file: Path, prices: Path) -> None:
    _, out, _ = run("usage", "--ledger", file, "--csv", "--by", "model", "--prices", prices)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["model"] for row in rows] == ["m", "'=1+1"]
    assert rows[0] == {
        "model": "m",
        "requests": "2",
        "tokens_in": "2000",
        "tokens_out": "4000",
        "cost": "10.002000",
        "currency": "EUR",
    }


def test_nothing_in_that_time(file: Path) -> None:
    assert run("usage", "--ledger", file, "--until", "2001-01-01") == (0, "nothing was served in that time\n", "")
    answer = usage_json("--ledger", file, "--until", "2001-01-01")
    assert (answer["rows"], answer["total"]["requests"]) == ([], 0)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--ledger", "/nonexistent/x.sqlite"], "there is no ledger"),
        (["--since", "yesterday"], "is no moment"),
        (["--by", "colour"], "'colour' is not one of"),
        (["--json", "--csv"], "leave one out"),
        (["--prices", "/nonexistent/prices.toml"], "there is no price table"),
    ],
)
def test_what_cannot_be_meant(file: Path, args: list[str], words: str) -> None:
    status, _, err = run("usage", *(["--ledger", str(file)] if "--ledger" not in args else []), *args)
    assert status == 2
    assert words in err


def test_neither_verb_needs_the_webs_packages(tmp_path: Path) -> None:
    """A ledger is read, and a key made, where the extra [gateway] is not installed."""
    script = (
        "import sys\n"
        "for name in ('starlette', 'uvicorn', 'prometheus_client', 'llguidance'): sys.modules[name] = None\n"
        "from swarm.cli.main import cli\n"
        "cli.main(sys.argv[1:])\n"
    )
    for args, status in ((["usage", "--ledger", tmp_path / "none"], 2), (["gateway-keys", "add", "a"], 0)):
        command = [sys.executable, "-c", script, *map(str, args)]
        environment = {**os.environ, "SWARM_GATEWAY_KEYS": str(tmp_path / "keys.json")}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
        assert ended.returncode == status, ended.stderr
    assert (tmp_path / "keys.json").exists()


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_is_printed_once_and_lets_its_owner_in(tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.json"
    status, out, err = run("gateway-keys", "add", "alice", "--keys", keys_file)
    key = out.strip()
    assert (status, out.count("\n")) == (0, 1)
    assert "not shown again" in err and key not in err
    store = KeyStore(keys_file)
    assert asyncio.run(store.authenticate(f"Bearer {key}")) == Caller("alice")
    store.close()
    assert key not in run("gateway-keys", "list", "--keys", keys_file)[1]


def test_keys_for_programs(tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.json"
    made = json.loads(run("gateway-keys", "add", "alice", "--keys", keys_file, "--json")[1])
    assert (made["schema"], made["name"], made["file"]) == ("swarm.gateway-keys/1", "alice", str(keys_file))
    listed = json.loads(run("gateway-keys", "list", "--keys", keys_file, "--json")[1])
    assert [(key["name"], key["id"]) for key in listed["keys"]] == [("alice", made["key"].split("-")[1])]
    assert json.loads(run("gateway-keys", "remove", "alice", "--keys", keys_file, "--json")[1])["removed"]
    assert json.loads(run("gateway-keys", "list", "--keys", keys_file, "--json")[1])["keys"] == []


def test_the_list_for_people(tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.json"
    for name in ("alice", "bob"):
        run("gateway-keys", "add", name, "--keys", keys_file)
    _, out, _ = run("gateway-keys", "list", "--keys", keys_file)
    assert [line.split()[0] for line in out.splitlines()] == ["name", "alice", "bob"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("list",), "there is no key file"),
        (("remove", "alice"), "there is no key file"),
        (("add", "a b"), "cannot name a key"),
    ],
)
def test_keys_that_cannot_be(tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    status, out, err = run("gateway-keys", *args, "--keys", tmp_path / "keys.json")
    assert (status, out) == (2, "")
    assert words in err
