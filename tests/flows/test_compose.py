"""compose.yaml without an engine: its services run as processes of this machine, by the very commands in the file.

What a container would give each of them (an address, folders, the environment) is put in its place: addresses become
loopback ones, volumes folders, and the network `lan` becomes `loopback`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SUBNET = "172.30.77."
KEY = "sk-of-the-compose-test"
SERVICES = ("release", "seeder", "node-1", "node-2", "node-3", "gateway")
READY_TIMEOUT_S = 150.0
STOP_TIMEOUT_S = 45.0

VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_0-9]+)(?:(:-|:\?)([^}]*))?\})")


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """Compose's variables in a file's text. Source: Compose specification, 12 (interpolation)."""

    def value(found: re.Match[str]) -> str:
        escaped, name, operator, word = found.groups()
        if escaped:
            return "$"
        given = environment.get(name, "")
        if given or operator is None:
            return given
        if operator == ":?":
            raise KeyError(f"{name}: {word}")
        return str(word)

    return VARIABLE.sub(value, text)


def without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def compose(**environment: str) -> dict[str, Any]:
    text = without_comments((ROOT / "compose.yaml").read_text())
    loaded: dict[str, Any] = yaml.safe_load(interpolate(text, environment))
    return loaded


# -- the file ------------------------------------------------------------------------------------------------------


def test_the_one_thing_to_choose_is_the_gateway_s_key() -> None:
    with pytest.raises(KeyError, match="SWARM_API_KEY: choose the key"):
        compose()
    assert tuple(compose(SWARM_API_KEY=KEY)["services"]) == SERVICES


def test_what_the_services_name_is_there() -> None:
    loaded = compose(SWARM_API_KEY=KEY)
    targets = set(re.findall(r"^FROM .* AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    arguments = set(re.findall(r"^ARG (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    addresses = set()
    for service in loaded["services"].values():
        assert service["build"]["target"] in targets
        assert service["image"] == f"mistral-swarm:{service['build']['target']}"
        assert set(service["build"]["args"]) <= arguments
        assert set(service.get("depends_on", {})) <= set(loaded["services"])
        assert {volume.split(":")[0] for volume in service["volumes"]} <= set(loaded["volumes"])
        assert set(service.get("networks", {})) <= set(loaded["networks"])
        addresses |= {network["ipv4_address"] for network in service.get("networks", {}).values()}
    assert len(addresses) == len(SERVICES) - 1
    assert all(address.startswith(SUBNET) for address in addresses)
    text = json.dumps([service["command"] for service in loaded["services"].values()])
    assert set(re.findall(r"172\.30\.77\.\d+", text)) <= addresses


def test_nothing_is_open_to_the_network_or_runs_with_privileges() -> None:
    services = compose(SWARM_API_KEY=KEY)["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["gateway"]
    assert services["gateway"]["ports"] == ["127.0.0.1:8000:8000"]
    for service in services.values():
        assert service.get("user", "10001:10001") == "10001:10001"
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert not {"privileged", "network_mode"} & set(service) or service["network_mode"] == "none"


def test_a_release_of_one_s_own_is_named_by_the_environment() -> None:
    own = {"SWARM_RELEASES": "/srv/models", "SWARM_RELEASE": "Mixtral", "LAYERS_1": "0:11", "SWARM_UID": "1000"}
    services = compose(SWARM_API_KEY=KEY, **own)["services"]
    assert all(service["volumes"][0].startswith("/srv/models:/releases") for service in services.values())
    assert {service["environment"]["SWARM_RELEASE"] for service in services.values()} == {"Mixtral"}
    assert services["node-1"]["environment"]["LAYERS"] == "0:11"
    assert services["release"]["user"] == "1000:10001"
    writers = [name for name, service in services.items() if not service["volumes"][0].endswith(":ro")]
    assert writers == ["release"]


# -- the services --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """Where the services run. prefix: of their addresses, instead of SUBNET."""

    folder: Path
    prefix: str

    def localised(self, text: str, name: str, address: str) -> str:
        text = text.replace(SUBNET, self.prefix).replace("0.0.0.0:", f"{address}:").replace("127.0.0.1:", f"{address}:")
        text = re.sub(r"(?<![\w/])/releases\b", str(self.folder / "releases"), text)
        return re.sub(r"(?<![\w/])/data\b", str(self.folder / name), text)

    def address(self, service: Mapping[str, Any]) -> str:
        networks = service.get("networks", {})
        return networks["swarm"]["ipv4_address"].replace(SUBNET, self.prefix) if networks else "127.0.0.1"

    def environment(self, name: str, service: Mapping[str, Any]) -> dict[str, str]:
        (self.folder / name).mkdir(exist_ok=True)
        own = {**service["environment"], "SWARM_NETWORK": "loopback", "SWARM_DATA_DIR": str(self.folder / name)}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, **own, "PATH": path, "HOME": str(self.folder / name), "OMP_NUM_THREADS": "1"}

    def command(self, name: str, service: Mapping[str, Any], words: list[str]) -> list[str]:
        return [self.localised(word, name, self.address(service)) for word in words]

    def start(self, name: str, service: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                self.command(name, service, [*service["entrypoint"], *service["command"]]),
                env=self.environment(name, service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def logs(self) -> str:
        return "\n".join(f"== {path.stem}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    program = tmp_path / "bin" / "swarm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m swarm "$@"\n')
    program.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "releases").mkdir()
    # Ports are fixed in the file, so that each run has a part of 127.0.0.0/8 for itself.
    return Machine(tmp_path, f"127.{77 + os.getpid() // 250 % 150}.{1 + os.getpid() % 250}.")


@pytest.fixture
def running(machine: Machine) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Processes by service; all of them have ended afterwards."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    yield processes
    for process in processes.values():
        if process.poll() is None:
            process.kill()
            process.wait()


def is_healthy(machine: Machine, service: Mapping[str, Any]) -> bool:
    """The file's own health check, once."""
    check = machine.command("gateway", service, service["healthcheck"]["test"])
    assert check[0] == "CMD"
    environment = machine.environment("gateway", service)
    return subprocess.run(check[1:], env=environment, capture_output=True, check=False, timeout=60).returncode == 0


def post(url: str, fields: Mapping[str, Any], key: str | None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, json.dumps(fields).encode(), headers)
    with urllib.request.urlopen(request, timeout=90) as answer:
        loaded: dict[str, Any] = json.load(answer)
        return loaded


@pytest.mark.timeout(400)
def test_the_services_find_each_other_and_answer(machine: Machine, running: dict[str, subprocess.Popen[bytes]]) -> None:
    services = compose(SWARM_API_KEY=KEY)["services"]
    for attempt in range(2):  # the second time it finds its work done, as after `docker compose up` once more
        maker = machine.start("release", services["release"])
        assert maker.wait(READY_TIMEOUT_S) == 0, f"run {attempt + 1}\n{machine.logs()}"
    magnet = (machine.folder / "releases" / "pip-12m.magnet").read_text()
    assert f"x.pe={machine.prefix}10:6881" in magnet
    for name in SERVICES[1:]:
        running[name] = machine.start(name, services[name])

    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not is_healthy(machine, services["gateway"]):
        ended = {name: process.returncode for name, process in running.items() if process.poll() is not None}
        assert not ended and time.monotonic() < deadline_s, f"{ended}\n{machine.logs()}"

    url = f"http://{machine.prefix}20:8000/v1/completions"
    asked = {"model": "pip-12m", "prompt": "Once upon", "max_tokens": 4}
    answer = post(url, asked, KEY)
    assert answer["usage"]["completion_tokens"] >= 1, answer
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(url, asked, None)
    refused.value.close()
    assert refused.value.code == 401

    for process in running.values():
        process.send_signal(signal.SIGTERM)
    ends = {name: process.wait(STOP_TIMEOUT_S) for name, process in running.items()}
    assert ends == dict.fromkeys(running, 0), machine.logs()
    assert (machine.folder / "gateway" / "usage.sqlite").stat().st_size > 0
