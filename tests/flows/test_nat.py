"""A node behind a real NAT, in network namespaces of this test's own: world, router and home.

world 203.0.113.1 --- 203.0.113.2 router 192.168.77.1 --- 192.168.77.2 home
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from swarm.cli.processes import Child

DEADLINE_S = 60.0
WORLD, OUTER, INNER, HOME = "203.0.113.1", "203.0.113.2", "192.168.77.1", "192.168.77.2"
WAN = ("--network", "wan", "--bootstrap", f"{WORLD}:6881")
RULES = """
table ip nat {
  chain prerouting { type nat hook prerouting priority -100; }
  chain postrouting { type nat hook postrouting priority 100; oifname "outer" masquerade; }
}
table ip filter {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ct status dnat accept
    iifname "inner" accept
  }
}
"""


@dataclass
class Networks:
    """The three namespaces, and what runs in them."""

    folder: Path
    suffix: str
    children: list[Child] = field(default_factory=list)
    routers: list[subprocess.Popen[str]] = field(default_factory=list)

    def name(self, where: str) -> str:
        return f"{where}-{self.suffix}"

    def within(self, where: str) -> list[str]:
        return ["ip", "netns", "exec", self.name(where)]

    def build(self) -> None:
        for where in ("world", "router", "home"):
            run("ip", "netns", "add", self.name(where))
            run(*self.within(where), "ip", "link", "set", "lo", "up")
        for ends in (
            (("world", "out", WORLD), ("router", "outer", OUTER)),
            (("home", "in", HOME), ("router", "inner", INNER)),
        ):
            (a, a_link, _), (b, b_link, _) = ends
            run(
                "ip",
                "link",
                "add",
                a_link,
                "netns",
                self.name(a),
                "type",
                "veth",
                "peer",
                b_link,
                "netns",
                self.name(b),
            )
            for where, link, address in ends:
                run("ip", "-n", self.name(where), "addr", "add", f"{address}/24", "dev", link)
                run("ip", "-n", self.name(where), "link", "set", link, "up")
        run("ip", "-n", self.name("home"), "route", "add", "default", "via", INNER)
        run("ip", "-n", self.name("world"), "route", "add", "default", "via", OUTER)  # so that it has a way outwards
        run(*self.within("router"), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.forget_mappings()

    def forget_mappings(self) -> None:
        run(*self.within("router"), "nft", "flush", "ruleset")
        run(*self.within("router"), "nft", "-f", "-", input=RULES)

    def forward_by(self, protocol: str) -> None:
        """From now on the router forwards ports to whoever asks."""
        script = Path(__file__).with_name("home_router.py")
        command = [*self.within("router"), sys.executable, str(script), protocol, INNER, OUTER]
        router = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.routers.append(router)
        assert router.stdout is not None and router.stdout.readline() == "ready\n"

    def forward_no_more(self) -> None:
        for router in self.routers:
            router.kill()
            router.communicate()
        self.routers.clear()
        self.forget_mappings()

    def start(self, where: str, *arguments: object) -> Child:
        log = self.folder / f"{len(self.children)}.log"
        words = [*map(str, arguments), *WAN, "--json"]
        self.children.append(Child(f"{arguments[0]} in {where}", words, log, within=self.within(where)))
        return self.children[-1]

    def node(self, where: str, magnet: str, *options: object) -> Child:
        data_dir = self.folder / f"node-{len(self.children)}"
        options = ("--dtype", "fp32", "--threads", 1, "--data-dir", data_dir, *options)
        return self.start(where, "node", "start", magnet, *options)

    def ask(self, where: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        words = [*map(str, arguments), *WAN, "--json"]
        command = [*self.within(where), sys.executable, "-m", "swarm", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)

    def netcheck(self) -> dict[str, dict[str, str]]:
        """At home, with the world's node to ask: finding by name."""
        ran = self.ask("home", "netcheck", "--peer", f"{WORLD}:7000", "--listen", "0.0.0.0:7100", "--timeout", 3)
        assert ran.returncode == 0, ran.stderr
        found = json.loads(ran.stdout)
        assert found["schema"] == "swarm.netcheck/1"
        return {finding["name"]: finding for finding in found["findings"]}

    def end(self) -> None:
        for child in self.children:
            child.kill()
        self.forward_no_more()
        for where in ("world", "router", "home"):
            run("ip", "netns", "del", self.name(where))


def run(*command: str, **options: Any) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Networks]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft"))):
        pytest.skip("network namespaces need root, iproute2 and nftables (Debian packages of these names)")
    made = Networks(tmp_path_factory.mktemp("nat"), str(os.getpid()))
    try:
        made.build()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel or sandbox lets nobody build a network: {error.stderr.strip()}")
    yield made
    made.end()


@pytest.fixture(scope="module")
def magnet(networks: Networks, speaking_release: Path) -> str:
    """Of a release that is seeded in the world, where one node hosts its first layer and may be a relay."""
    seeder = networks.start("world", "release", "seed", speaking_release, "--listen", f"{WORLD}:6881")
    magnet = str(seeder.wait_for("seeding", DEADLINE_S)["magnet"])
    networks.node("world", magnet, "--layers", "0:1", "--listen", "0.0.0.0:7000").wait_for("ready", DEADLINE_S)
    return magnet


def test_a_node_behind_a_nat_serves_through_a_relay_within_thirty_seconds(networks: Networks, magnet: str) -> None:
    began_s = time.monotonic()
    node = networks.node("home", magnet, "--layers", "1:3", "--peer", f"{WORLD}:7000")
    found = node.wait_for("reach", DEADLINE_S)
    assert found["reachability"] == "unreachable" and found["relay"]
    assert found["address"].endswith(f"@{WORLD}:7000")
    node.wait_for("ready", DEADLINE_S)
    options = ("--peer", f"{WORLD}:7000", "--max-tokens", 4, "--ignore-eos", "--data-dir", networks.folder / "client")
    answer = networks.ask("world", "generate", magnet, "Hello", *options)
    assert answer.returncode == 0, answer.stderr
    assert time.monotonic() - began_s < 30
    node.interrupt()

    says = networks.netcheck()
    assert {name: says[name]["state"] for name in ("mapping", "reach", "relay", "outward")} == {
        "mapping": "note",
        "reach": "note",
        "relay": "ok",
        "outward": "ok",
    }
    assert OUTER in says["outward"]["says"] and HOME in says["address"]["says"]
    assert "UPnP" in says["mapping"]["mend"] and "7100" in says["reach"]["mend"]


@pytest.mark.parametrize(("protocol", "words"), [("natpmp", "NAT-PMP"), ("upnp", "UPnP")])
def test_a_router_that_forwards_ports_makes_it_reachable(
    networks: Networks, magnet: str, protocol: str, words: str
) -> None:
    networks.forward_by(protocol)
    try:
        says = networks.netcheck()
        deadline_s = time.monotonic() + DEADLINE_S
        while "often enough" in says["reach"]["says"] and time.monotonic() < deadline_s:
            says = networks.netcheck()  # a node dials one host back now and then only
        assert says["mapping"]["state"] == says["reach"]["state"] == "ok", says
        assert f"{OUTER}:7100" in says["mapping"]["says"] and words in says["mapping"]["says"]
        assert f"{OUTER}:7100" in says["reach"]["says"]
        node = networks.node("home", magnet, "--layers", "1:3", "--peer", f"{WORLD}:7000", "--listen", "0.0.0.0:7200")
        found = node.wait_for("reach", DEADLINE_S)
        assert (found["reachability"], found["relay"], found["address"]) == ("reachable", None, f"{OUTER}:7200")
        node.interrupt()
    finally:
        networks.forward_no_more()
