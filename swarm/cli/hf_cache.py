"""Where the Hugging Face hub's client keeps a repository on this machine. Reads the cache's layout; writes nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from swarm.errors import BadArgument


def hub_cache() -> Path:
    """HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub, as the hub's client has it."""
    if given := os.environ.get("HF_HUB_CACHE"):
        return Path(given).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(os.environ.get("HF_HOME", cache / "huggingface")).expanduser() / "hub"


def snapshot_folder(repo: str) -> Path:
    """The folder of a repository's newest revision: named by its commit, full of links into the cache's blobs.

    repo: ORG/NAME, or ORG/NAME@REVISION for another revision than main. Raises: BadArgument.
    """
    name, _, revision = repo.partition("@")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) is None or not re.fullmatch(r"[\w./-]*", revision) or ".." in repo:
        raise BadArgument(f"{repo!r} is no repository of the hub; write ORG/NAME, or ORG/NAME@REVISION")
    folder = hub_cache() / f"models--{name.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / commit
    if not re.fullmatch(r"[0-9a-f]{40}", commit) or not snapshot.is_dir():
        raise BadArgument(
            f"{hub_cache()} has no {repo}; fetch it with `hf download {name}`, or set HF_HUB_CACHE to where it is"
        )
    return snapshot


def hub_web_seed(repo: str) -> str:
    """The hub as BEP 19 web seed of a torrent that is named by the commit: …/resolve/COMMIT/FILE is each file."""
    return f"https://huggingface.co/{repo.partition('@')[0]}/resolve/"
