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

    repo: ORG/NAME, or ORG/NAME@REVISION for another revision than main.
    Raises: BadArgument, also for a file there whose link leads out of the repository's own folder.
    """
    name, at, revision = repo.partition("@")
    is_named = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and re.fullmatch(r"[\w.-]+(/[\w.-]+)*", revision or "main")
    if not is_named or ".." in repo or (at and not revision):
        raise BadArgument(f"{repo!r} is no repository of the hub; write ORG/NAME, or ORG/NAME@REVISION")
    folder = hub_cache() / f"models--{name.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / commit
    if not re.fullmatch(r"[0-9a-f]{40}", commit) or not snapshot.is_dir():
        raise BadArgument(
            f"{hub_cache()} has no {repo}; fetch it with `hf download {name}`, or set HF_HUB_CACHE to where it is"
        )
    refuse_strays(snapshot, folder)
    return snapshot


def refuse_strays(snapshot: Path, repo_folder: Path) -> None:
    """Raises: BadArgument for a link that leads anywhere but below repo_folder: whoever put it there would have any
    file of this user's seeded to the world.
    """
    root = repo_folder.resolve()
    for parent, folders, names in os.walk(snapshot):
        for name in sorted((*folders, *names)):
            path = Path(parent, name)
            if not path.resolve().is_relative_to(root):
                raise BadArgument(
                    f"{path} is a link to {path.resolve()}, outside of {root}, and is not given to others; remove it, "
                    "or copy the release into a folder and seed that"
                )


def hub_web_seed(repo: str) -> str:
    """The hub as BEP 19 web seed of a torrent that is named by the commit: …/resolve/COMMIT/FILE is each file."""
    return f"https://huggingface.co/{repo.partition('@')[0]}/resolve/"
