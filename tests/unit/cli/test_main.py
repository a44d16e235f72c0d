"""The root command: help, version, unknown verbs, the verbs of other packages, and what a start imports."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import click
import pytest
from click.testing import CliRunner

import swarm
from swarm.cli import main as root

HEAVY = ("torch", "mistral_common", "numpy", "grpc", "libtorrent", "rich", "swarm.client", "swarm.torrent")


def invoke(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(root.cli, list(args), prog_name="swarm")
    return result.exit_code, result.stdout, result.stderr


def test_help_lists_every_verb_once_in_order() -> None:
    status, out, _ = invoke("--help")
    assert status == 0
    verbs = [line.split()[0] for line in out.partition("Verbs:\n")[2].splitlines() if line.startswith("  ")]
    assert [verb for verb in verbs if verb in (*root.VERBS, "node")] == [*root.VERBS, "node"]
    assert "Example:" in out


@pytest.mark.parametrize("args", [(), ("release",), ("keys",)])
def test_a_group_alone_prints_its_help_once(args: tuple[str, ...]) -> None:
    _, helped, _ = invoke(*args, "--help")
    assert invoke(*args) == (2, "", helped)


def test_version_is_the_packages() -> None:
    assert invoke("--version") == (0, f"swarm {swarm.__version__}\n", "")


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("generate", "--help"), ("release", "create", "--help")])
def test_help_imports_nothing_heavy(args: tuple[str, ...]) -> None:
    script = (
        "import sys\nfrom swarm.cli.main import cli\n"
        f"try:\n    cli.main({list(args)!r})\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert ran.stdout.splitlines()[-1] == "LOADED []"


def test_help_imports_no_package_but_click() -> None:
    """What a start costs is what it imports."""
    script = (
        "import sys\nbefore = set(sys.modules)\nfrom swarm.cli.main import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names\n"
        "print('LOADED', sorted(roots), sum(name.startswith('swarm.') for name in sys.modules))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    packages, n_ours = ran.stdout.splitlines()[-1].removeprefix("LOADED ").rsplit(" ", 1)
    assert packages == "['click', 'swarm']"
    assert int(n_ours) <= 8, "swarm.cli, swarm.errors and little more"


@pytest.mark.parametrize(("typed", "meant"), [("generat", "generate"), ("stauts", "status"), ("nod", "node")])
def test_a_mistyped_verb_is_answered_with_the_one_that_was_meant(typed: str, meant: str) -> None:
    status, out, err = invoke(typed)
    assert (status, out) == (2, "")
    assert f"did you mean '{meant}'" in err


def test_a_verb_like_no_other_is_answered_with_all_of_them() -> None:
    status, _, err = invoke("zzzz")
    assert status == 2
    assert all(verb in err for verb in root.VERBS)


def test_a_mistyped_option_is_a_usage_error_with_a_hint() -> None:
    status, _, err = invoke("status", "magnet:?", "--jsn")
    assert status == 2
    assert "error: No such option '--jsn'. Did you mean '--json'?" in err
    assert "Try 'swarm status --help'." in err


@pytest.mark.parametrize(
    "verb", [("gateway", "demo"), ("node", "start", "demo"), ("release", "seed", ".")], ids=" ".join
)
def test_a_port_by_itself_is_answered_with_listen(verb: tuple[str, ...]) -> None:
    status, _, err = invoke(*verb, "--port", "8001")
    assert status == 2
    assert "error: No such option '--port'. Did you mean '--listen HOST:PORT'?" in err
    assert "--port " not in invoke(*verb[:-1], "--help")[1], "it is no option"


def every_command() -> list[tuple[str, ...]]:
    ctx = click.Context(root.cli)
    names: list[tuple[str, ...]] = []
    for verb in root.VERBS:
        command = root.cli.get_command(ctx, verb)
        names.append((verb,))
        if isinstance(command, click.Group):
            names += [(verb, sub) for sub in command.list_commands(ctx)]
    return names


@pytest.mark.parametrize("names", every_command(), ids=" ".join)
def test_every_verb_has_help_with_an_example(names: tuple[str, ...]) -> None:
    status, out, _ = invoke(*names, "--help")
    assert status == 0
    assert f"Example: swarm {' '.join(names)}" in out


NO_ANSWER = {("release",), ("completion",), ("gateway-keys",), ("keys",)}
"""A group, and a verb whose answer is a program itself."""


@pytest.mark.parametrize("names", [n for n in every_command() if n not in NO_ANSWER], ids=" ".join)
def test_every_verb_answers_programs_too(names: tuple[str, ...]) -> None:
    assert "--json" in invoke(*names, "--help")[1]


def test_the_line_in_the_list_does_not_need_the_verb() -> None:
    assert all(text.endswith(".") for _, text in root.VERBS.values())
    assert root.short_help("node") == root.EXTERNAL_HELP["node"]
    assert root.short_help("unheard-of")


# -- verbs of other packages ---------------------------------------------------------------------------------------


def with_entry_points(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    entries = [metadata.EntryPoint(name, value, root.ENTRY_POINT_GROUP) for name, value in values.items()]

    def entry_points(*, group: str, name: str | None = None) -> list[metadata.EntryPoint]:
        return [entry for entry in entries if group == root.ENTRY_POINT_GROUP and name in (None, entry.name)]

    monkeypatch.setattr(root.metadata, "entry_points", entry_points)


@click.command()
def hello() -> None:
    """Say hello."""
    click.echo("hello from elsewhere")


NOT_A_COMMAND = object()


def test_a_verb_of_another_package_is_found_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules.setdefault("cli_test_plugin", type(sys)("cli_test_plugin"))
    vars(module)["hello"] = hello
    with_entry_points(monkeypatch, hello="cli_test_plugin:hello")
    assert invoke("hello") == (0, "hello from elsewhere\n", "")
    assert "hello" in invoke("--help")[1]


def test_our_own_verbs_cannot_be_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entry_points(monkeypatch, status="does.not.exist:status")
    assert invoke("status", "--help")[0] == 0
    assert invoke("--help")[1].count("\n  status ") == 1


def test_node_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entry_points(monkeypatch, node="node.cli:node")
    monkeypatch.setattr(root.importlib.util, "find_spec", lambda name: None)
    status, out, err = invoke("node", "start")
    assert (status, out) == (1, "")
    assert "pip install 'mistral-swarm[node]'" in err


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("no_such_module_at_all:verb", "no_such_module_at_all"),
        ("swarm.terms:no_such_attribute", "no_such_attribute"),
        ("swarm.terms:WIRE_DTYPES", "not a click command"),
    ],
)
def test_a_broken_verb_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch, value: str, expected: str) -> None:
    with_entry_points(monkeypatch, broken=value)
    status, _, err = invoke("broken")
    assert status == 1
    assert expected in err
    assert "Traceback" not in err


def test_json_errors_are_one_object_even_for_usage() -> None:
    status, out, err = invoke("status", "--json", "--no-such-flag")
    fields = json.loads(out)
    assert (status, fields["error"], fields["exit_code"]) == (2, "UsageError", 2)
    assert fields["schema"] == "swarm.error/1"
    assert fields["message"] in err
