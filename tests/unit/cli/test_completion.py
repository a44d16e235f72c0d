"""`swarm completion`: the scripts are loaded by the real shells, which then complete verbs, flags and choices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from swarm.cli import main as root
from swarm.cli.completion import SHELLS

ASK = {
    # In each shell: load the script from a file, then complete the line as if TAB had been pressed at its end.
    "bash": """
        eval "$(swarm completion bash)"
        COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        compopt() {{ :; }}
        _swarm_completion swarm
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """,
    "zsh": """
        compdef() {{ :; }}
        compadd() {{ print -l -- $completions; }}
        _describe() {{ print -l -- ${{completions_with_descriptions%%:*}}; }}
        eval "$(swarm completion zsh)"
        words=({words}); CURRENT=${{#words}}
        _swarm_completion
    """,
    "fish": """
        swarm completion fish | source
        complete --do-complete '{line}'
    """,
}


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `swarm` of this very checkout."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "swarm"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m swarm \"$@\"\n")
    program.chmod(0o755)
    return folder


def completed(shell: str, line: str, commands: Path) -> list[str]:
    """What the shell offers after `line`."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    words = " ".join(f"'{word}'" for word in line.split(" "))
    script = ASK[shell].format(words=words, line=line)
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "HOME": str(commands)}
    ran = subprocess.run(
        [shell, *flags, "-c", script], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert ran.stderr == ""
    return [entry.split("\t")[0] for entry in ran.stdout.splitlines() if entry]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("swarm sta", ["status"]),
        ("swarm release ", ["embedded", "inspect", "list", "plan", "seed", "sign", "verify", "create"]),
        ("swarm top --on", ["--once"]),
        ("swarm status --network l", ["loopback", "lan"]),
        ("swarm completion ", list(SHELLS)),
        ("swarm no-such-verb ", []),
    ],
)
def test_a_shell_completes(shell: str, line: str, offered: list[str], commands: Path) -> None:
    assert sorted(completed(shell, line, commands)) == sorted(offered)


def test_every_verb_is_offered_and_none_is_imported_for_it(commands: Path) -> None:
    script = (
        "import sys\nfrom swarm.cli.main import cli\ntry:\n    cli.main([])\nexcept SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "print([n for n in sys.modules if n in ('node', 'swarm.cli.status', 'swarm.cli.top', 'torch')])\n"
    )
    environment = {**os.environ, "_SWARM_COMPLETE": "bash_complete", "COMP_WORDS": "swarm ", "COMP_CWORD": "1"}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    *offered, loaded = ran.stdout.splitlines()
    assert loaded == "[]"
    assert set(offered) == {f"plain,{verb}" for verb in (*root.VERBS, "node")}


def test_a_verb_that_cannot_be_loaded_completes_to_nothing_and_says_nothing() -> None:
    """Without the node extra `swarm node <TAB>` must not write into the line that is being typed."""
    script = (
        "import sys\nsys.modules['torch'] = sys.modules['node'] = None\nfrom swarm.cli.main import cli\ncli.main([])"
    )
    environment = {**os.environ, "_SWARM_COMPLETE": "bash_complete", "COMP_WORDS": "swarm node ", "COMP_CWORD": "2"}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert (ran.stdout, ran.stderr) == ("", "")


def test_another_shell_is_a_usage_error_that_names_those_there_are() -> None:
    result = CliRunner().invoke(root.cli, ["completion", "tcsh"], prog_name="swarm")
    assert result.exit_code == 2
    assert all(shell in result.stderr for shell in SHELLS)
