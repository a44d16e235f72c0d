"""Every kind of failure has one text and one status, and none of them leaks a traceback but our own bugs."""

from __future__ import annotations

import errno
import inspect
import json
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

import swarm.errors
from swarm.cli.errors import explain, missing_extra, wants_json
from swarm.cli.main import VerbGroup
from swarm.errors import Interrupted, LayersUncovered, SwarmError

TREE = [kind for _, kind in inspect.getmembers(swarm.errors, inspect.isclass) if issubclass(kind, SwarmError)]


def prefix(kind: type[SwarmError]) -> str:
    """An interrupt is no failure."""
    return "" if kind is Interrupted else "error: "


def run_failing(error: BaseException | Callable[[], None], *args: str) -> tuple[int, str, str]:
    """The status and output of a process whose only verb fails like that."""

    @click.group(cls=VerbGroup)
    def cli() -> None:
        pass

    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def fail(as_json: bool) -> None:
        if isinstance(error, BaseException):
            raise error
        error()

    cli.get_command = lambda ctx, name: fail if name == "fail" else None  # type: ignore[method-assign]
    result = CliRunner().invoke(cli, ["fail", *args])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_each_error_ends_with_its_own_status_and_message(kind: type[SwarmError]) -> None:
    status, out, err = run_failing(kind("what, why, and what mends it"))
    assert status == kind.exit_code
    assert err == f"{prefix(kind)}what, why, and what mends it\n"
    assert out == ""


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_with_json_each_error_is_one_object_on_stdout(kind: type[SwarmError]) -> None:
    status, out, err = run_failing(kind("what, why"), "--json")
    assert json.loads(out) == {
        "schema": "swarm.error/1",
        "event": "error",
        "error": kind.__name__,
        "message": "what, why",
        "exit_code": status,
    }
    assert err == f"{prefix(kind)}what, why\n"


def test_uncovered_layers_are_named_for_programs() -> None:
    _, out, _ = run_failing(LayersUncovered("no host", (3, 4)), "--json")
    assert json.loads(out)["layers"] == [3, 4]


def test_an_interrupt_ends_with_130() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    status, out, err = run_failing(interrupt)
    assert (status, out) == (130, "")
    assert err.strip() == "interrupted"
    assert json.loads(run_failing(interrupt, "--json")[1])["error"] == "Interrupted"


def test_a_full_disk_has_its_status() -> None:
    status, _, err = run_failing(OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    assert status == 6
    assert "/data/x" in err
    assert "free some space" in err


def test_a_missing_file_is_told_without_a_traceback() -> None:
    status, _, err = run_failing(FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"))
    assert (status, err) == (1, "error: /x: No such file or directory\n")


def test_a_missing_package_of_the_node_extra_says_what_to_install() -> None:
    status, _, err = run_failing(ModuleNotFoundError("No module named 'safetensors.torch'", name="safetensors.torch"))
    assert status == 1
    assert "pip install 'mistral-swarm[node]'" in err
    assert "mistral-swarm[node]" not in missing_extra("click").message


def test_a_missing_module_of_ours_is_a_bug_and_no_missing_package() -> None:
    status, _, err = run_failing(ModuleNotFoundError("No module named 'swarm.nothing'", name="swarm.nothing"))
    assert status == 1
    assert "Traceback" in err
    assert "pip install" not in err


def test_a_bug_of_ours_shows_its_traceback_and_says_so() -> None:
    status, _, err = run_failing(ZeroDivisionError("division by zero"))
    assert status == 1
    assert "Traceback" in err
    assert "bug in swarm" in err


def test_a_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_TRACEBACK", "1")
    assert "Traceback" in run_failing(SwarmError("x"))[2]


def test_click_exceptions_keep_their_own_status() -> None:
    assert run_failing(click.ClickException("no"))[0] == 1
    assert run_failing(click.BadParameter("no"))[0] == 2
    assert explain(click.UsageError("no")).usage == ""


def test_json_is_known_from_the_command_line_but_not_from_behind_the_dashes() -> None:
    assert wants_json(["generate", "magnet:?", "--json"])
    assert not wants_json(["generate", "magnet:?", "--", "--json"])
    assert not wants_json([])
