"""`swarm doctor`: is this machine fit for a node, and what mends the rest. Looks, and changes nothing."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import click

from swarm.cli.console import format_size
from swarm.cli.findings import print_findings, worst
from swarm.cli.huge_pages import SETTING, VARIABLE
from swarm.cli.options import ADDRESS, data_dir_option, json_option, keyring_at, keys_dir_option
from swarm.errors import SwarmError
from swarm.terms import Address, Finding, counted, short_id

DOCTOR_SCHEMA = "swarm.doctor/1"

CLIENT_PACKAGES = ("mistral-swarm", "grpcio", "libtorrent", "protobuf", "mistral-common", "zeroconf")
NODE_PACKAGES = ("torch", "safetensors", "psutil")

FREE_DISK_BYTES = 1 << 30
"""Below it hardly a layer of a useful model fits; `swarm release plan` says what each takes."""

FREE_MEMORY_BYTES = 2 << 30
OPEN_FILES = 1024
"""A torrent session alone may have 200 connections, and a node several hundred more."""

NOT_COMPARED = Finding("clock", "note", "compared with nobody's", "name a node that runs: --peer HOST:PORT")

CLOCK_NOTE_S = 5.0
CLOCK_BAD_S = 120.0
"""Nodes refuse facts from further ahead (swarm.discovery.table)."""


@click.command(epilog="Example: swarm doctor --peer 198.51.100.8:7000")
@click.option("--listen", type=ADDRESS, help="The port that a node is to take: is it free?")
@click.option("--peer", "peers", type=ADDRESS, multiple=True, help="A node to compare clocks with (repeatable).")
@keys_dir_option
@data_dir_option("The folder that a node is to keep its bytes in (default: the user's data folder).")
@json_option
def doctor(
    listen: Address | None, peers: tuple[Address, ...], keys_dir: Path | None, data_dir: Path | None, as_json: bool
) -> None:
    """Look at this machine: versions, memory, disk, limits, keys, clock. Exits with 1 where something is bad.

    `swarm netcheck` looks at the network.
    """
    from platformdirs import user_data_path

    findings = [
        check_python(),
        check_client(),
        check_node(),
        check_memory(),
        check_pages(),
        check_disk(data_dir or user_data_path("mistral-swarm")),
        check_open_files(),
        *([] if listen is None else [check_port(listen)]),
        check_keys(keys_dir),
        *(asyncio.run(check_clocks(peers)) if peers else (NOT_COMPARED,)),
    ]
    print_findings(DOCTOR_SCHEMA, findings, as_json)
    if worst(findings) == "bad":
        bad = [finding.name for finding in findings if finding.state == "bad"]
        raise SwarmError(f"{' and '.join(bad)} would keep a node from serving; what mends it is said above")


def check_python() -> Finding:
    system = f"{platform.system()} {platform.machine()}, {' '.join(filter(None, platform.libc_ver())) or 'no glibc'}"
    cpus = counted(os.cpu_count() or 1, "CPU")
    return Finding("python", "ok", f"Python {platform.python_version()} on {system}, {cpus}")


def check_client() -> Finding:
    missing = [name for name in CLIENT_PACKAGES if version_of(name) is None]
    if missing:
        return Finding("client", "bad", f"{', '.join(missing)} missing", "pip install --upgrade mistral-swarm")
    return Finding("client", "ok", ", ".join(f"{name} {version_of(name)}" for name in CLIENT_PACKAGES))


def check_node() -> Finding:
    missing = [name for name in NODE_PACKAGES if version_of(name) is None]
    if missing:
        mend = "to host layers: pip install 'mistral-swarm[node]'"
        return Finding("node", "note", f"{', '.join(missing)} missing: this machine can ask, and not serve", mend)
    words = ", ".join(f"{name} {version_of(name)}" for name in NODE_PACKAGES)
    if "+cpu" in str(version_of("torch")) and Path("/dev/nvidiactl").exists():
        mend = "install the CUDA build of this version of torch, from download.pytorch.org"
        return Finding("node", "note", f"{words}: the GPU that is here cannot be used by this build", mend)
    return Finding("node", "ok", words)


def check_memory() -> Finding:
    if version_of("psutil") is None:
        return Finding("memory", "unknown", "psutil is not installed", "pip install 'mistral-swarm[node]'")
    import psutil

    memory = psutil.virtual_memory()
    words = f"{format_size(memory.available)} free of {format_size(memory.total)}"
    if memory.available < FREE_MEMORY_BYTES:
        return Finding("memory", "note", words, "end what takes the most, or host few layers: --memory SIZE")
    return Finding("memory", "ok", words)


def check_pages() -> Finding:
    """Weights are read faster from huge pages; `swarm node start` asks glibc for them."""
    if not sys.platform.startswith("linux"):
        return Finding("pages", "ok", "huge pages are asked for on Linux alone")
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    mode = setting.read_text() if setting.exists() else ""
    if "[never]" in mode:
        return Finding("pages", "note", "the kernel gives no huge pages", f"echo madvise | sudo tee {setting}")
    if not mode:
        return Finding("pages", "note", "this kernel has no huge pages")
    told = os.environ.get(VARIABLE)
    if told is not None and SETTING not in told:
        return Finding("pages", "note", f"{VARIABLE} is set without {SETTING}", f"unset {VARIABLE}, or add it")
    return Finding("pages", "ok", "the kernel gives huge pages, and nodes ask for them")


def check_disk(folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        mend = f"chown it to yourself, or name another with --data-dir (tried {there})"
        return Finding("disk", "bad", f"{folder} cannot be written: {error.strerror}", mend)
    words = f"{format_size(free)} free for {folder}"
    if free < FREE_DISK_BYTES:
        return Finding("disk", "bad", words, "free some, or name another folder with --data-dir")
    return Finding("disk", "ok", words)


def check_open_files() -> Finding:
    try:
        import resource
    except ImportError:
        return Finding("files", "ok", "this system does not limit open files by process")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < OPEN_FILES:
        return Finding("files", "note", f"{limit} files and sockets may be open", f"ulimit -n {4 * OPEN_FILES}")
    return Finding("files", "ok", f"{'any number of' if limit < 0 else limit} files and sockets may be open")


def check_port(listen: Address) -> Finding:
    for kind, name in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        try:
            with socket.socket(family, kind) as probe:
                probe.bind((listen.host, listen.port))
        except OSError as error:
            mend = "stop what listens there, or give another port (0: any)"
            return Finding("port", "bad", f"{name} {listen} cannot be had: {error.strerror or error}", mend)
    return Finding("port", "ok", f"{listen} is free")


def check_keys(keys_dir: Path | None) -> Finding:
    keyring = keyring_at(keys_dir)
    try:
        names, trusted = keyring.names(), keyring.trusted()
    except SwarmError as error:
        return Finding("keys", "bad", error.message, "mend or remove that file")
    readable = [name for name in names if (keyring.folder / f"{name}.key").stat().st_mode & 0o077]
    if readable:
        mend = f"chmod 600 {keyring.folder}/*.key"
        return Finding("keys", "bad", f"others may read {', '.join(readable)} in {keyring.folder}", mend)
    whom = f"trusted: {', '.join(trusted.values())}" if trusted else "none trusted: releases are taken from anybody"
    return Finding("keys", "ok", f"{counted(len(names), 'key')} of your own, {whom}")


async def check_clocks(peers: tuple[Address, ...]) -> list[Finding]:
    """How far this clock is from those of others, by what they signed just now."""
    from swarm.identity import NodeKey, issue
    from swarm.rpc import Dialer, RpcConfig

    findings = []
    async with Dialer(issue(NodeKey.generate()), RpcConfig.wan()) as dialer:
        for peer in peers:
            try:
                fact = (await (await dialer.connect(peer)).describe(5.0)).fact
            except SwarmError as error:
                findings.append(Finding("clock", "unknown", error.message, "name a node that runs"))
                continue
            findings.append(compare_clocks(fact.node_id, fact.issued_at_s - time.time(), fact.ttl_s))
    return findings


def compare_clocks(node_id: str, ahead_s: float, ttl_s: float) -> Finding:
    """ahead_s: of when the node signed, by its clock, against now by ours: at most ttl_s / 3 old where clocks agree."""
    off_s = max(ahead_s, -ahead_s - ttl_s / 3, 0.0)
    who = f"node {short_id(node_id)}"
    if off_s < CLOCK_NOTE_S:
        return Finding("clock", "ok", f"{who} has the same time")
    words = f"{who} is {off_s:.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    state = "bad" if off_s > CLOCK_BAD_S else "note"
    return Finding("clock", state, words, "set the clock by NTP: timedatectl set-ntp true")


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
