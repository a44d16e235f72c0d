from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.cli.huge_pages import SETTING, VARIABLE

PROGRAM = (
    "import json, os, sys\nfrom swarm.cli.huge_pages import restart_with_huge_pages\n"
    "os.environ['BEFORE'] = f\"{os.environ.get('BEFORE', '')} {os.getpid()}\"\nrestart_with_huge_pages()\n"
    f"print(json.dumps([os.environ['BEFORE'].split(), os.environ.get('{VARIABLE}'), sys.argv[1:]]))\n"
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="huge pages are set for Linux alone")
@pytest.mark.parametrize("given", [None, "glibc.malloc.check=0"])
def test_the_same_command_goes_on_in_the_same_process(given: str | None, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {} if given is None else {VARIABLE: given}
    command = [sys.executable, str(tmp_path / "program.py"), "a b", "--c"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    pids, setting, arguments = json.loads(ran.stdout)
    assert setting == (given or SETTING)
    assert len(pids) == (1 if given else 2), "once again, and once only"
    assert len(set(pids)) == 1
    assert arguments == ["a b", "--c"]
