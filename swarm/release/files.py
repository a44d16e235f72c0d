"""Which of a release's files are what: its format, its weights, its small companions, its tokenizer, its licence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from swarm.errors import CorruptRelease, UnsupportedArchitecture
from swarm.release.outside import show

MAX_COMPANION_BYTES = 64 << 20  # a tekken.json is 20 MB
MAX_COMPANIONS = 1000
MAX_ALL_COMPANIONS_BYTES = 256 << 20
MAX_LICENCE_BYTES = 64 << 10
MAX_LICENCE_CHARACTERS = 200
UNNAMED = "other"
"""The licence of a release that has one and does not name it, as the hub writes it."""

_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".npz", ".tar")
_NOT_FILES = (".torrent", ".parts", ".aria2")  # what clients leave beside a download
_HF_SHARD = re.compile(r"model(-[0-9]{5}-of-[0-9]{5})?\.safetensors")
_MISTRAL_SHARD = re.compile(r"consolidated(-[0-9]{5}-of-[0-9]{5}|\.[0-9]{2})?\.safetensors")
_PICKLED = re.compile(r"consolidated\.[0-9]{2}\.(pth|pt)")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """format: as in ReleaseLayout. index: the file that says which shard holds which tensor, where there is one."""

    format: str
    config: str
    shards: tuple[str, ...]
    index: str | None


def choose_weight_files(files: Mapping[str, int]) -> WeightFiles:
    """The files to read the model from: HF shards first, consolidated safetensors, fused .pt files, a .pth.

    files: path -> size, as in the torrent, relative to its folder. Only the top folder counts.
    Raises: CorruptRelease when the weights have no config, or there are none; UnsupportedArchitecture for other kinds.
    """
    hf = _matching(files, _HF_SHARD)
    mistral = _matching(files, _MISTRAL_SHARD)
    pickled = _matching(files, _PICKLED)
    if hf and "config.json" in files:
        return WeightFiles("hf", "config.json", hf, _present(files, "model.safetensors.index.json"))
    if mistral and "params.json" in files:
        return WeightFiles("mistral", "params.json", mistral, _present(files, "consolidated.safetensors.index.json"))
    config = _present(files, "params.json")
    if _are_fused(pickled) and (config or "config.json" in files):
        return WeightFiles("mistral-fused", config or "config.json", pickled, None)
    if pickled and config:
        if pickled != ("consolidated.00.pth",):
            raise UnsupportedArchitecture(
                f"the weights lie in {len(pickled)} pickled files ({show(pickled[0])} …) of a layout that is not read; "
                "use the release with a single consolidated.00.pth, with consolidated.00.pt to .07.pt, or with "
                "safetensors"
            )
        return WeightFiles("mistral-pth", config, pickled, None)
    if hf or mistral or pickled:
        lacking, found = ("config.json", hf[0]) if hf else ("params.json", (mistral or pickled)[0])
        raise CorruptRelease(f"the release has {found} but no {lacking}, which says what model it is; add that file")
    _refuse_other_weights(files)
    if "model.safetensors.index.json" in files or "consolidated.safetensors.index.json" in files:
        raise CorruptRelease("the release has an index but none of the shards that it names; fetch the whole release")
    raise CorruptRelease(
        "no weights found: a release is a folder with config.json and model*.safetensors, or params.json and "
        "consolidated.safetensors, consolidated.00.pth or consolidated.00.pt and so on"
    )


def companion_files(files: Mapping[str, int]) -> tuple[str, ...]:
    """The small files of the top folder that go with the weights, in order of name: configs, tokenizers, licence.

    Raises: CorruptRelease for more than MAX_COMPANIONS, or MAX_ALL_COMPANIONS_BYTES in all: every node fetches them.
    """
    found = sorted(
        name
        for name, size in files.items()
        if "/" not in name
        and not name.startswith(".")
        and not name.lower().endswith(_WEIGHT_SUFFIXES + _NOT_FILES)
        and 0 <= size <= MAX_COMPANION_BYTES
    )
    size_bytes = sum(files[name] for name in found)
    if len(found) > MAX_COMPANIONS or size_bytes > MAX_ALL_COMPANIONS_BYTES:
        raise CorruptRelease(
            f"beside its weights the release has {len(found)} small files of {size_bytes} bytes in all, which every "
            f"node would fetch; {MAX_COMPANIONS} files and {MAX_ALL_COMPANIONS_BYTES} bytes are the most. Move what "
            "the model does not need into a folder of its own, and make the release anew"
        )
    return tuple(found)


def choose_tokenizer_file(files: Mapping[str, int]) -> str | None:
    """tekken.json, else the tokenizer.model of the highest version, else None. HF's tokenizer.json is not read."""
    if "tekken.json" in files:
        return "tekken.json"
    versions = [name for name in files if re.fullmatch(r"tokenizer\.model\.v[0-9]{1,3}(m[0-9]{1,3})?", name)]
    if versions:
        return max(versions, key=lambda name: (int(re.findall(r"[0-9]+", name)[0]), name))
    return _present(files, "tokenizer.model")


def licence_files(files: Mapping[str, int]) -> list[str]:
    """Those that may state the licence, the most telling first."""
    return [name for name in ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE") if name in files]


def find_licence(texts: Mapping[str, bytes]) -> str | None:
    """The licence that the texts state, as the hub writes it (`apache-2.0`, `mrl`), or None when none does.

    texts: file -> its first MAX_LICENCE_BYTES. A README states it in its front matter, a LICENSE by its title.
    """
    is_named = True
    for name, data in texts.items():
        text = data[:MAX_LICENCE_BYTES].decode("utf-8", "replace")
        found = _front_matter_licence(text) if name == "README.md" else _titled_licence(text)
        if found not in (None, UNNAMED):
            return found
        is_named = is_named and found is None
    return None if is_named else UNNAMED


def _front_matter_licence(text: str) -> str | None:
    """`license`, or `license_name` where that says no more than that there is one; UNNAMED where neither names it."""
    if not text.startswith("---"):
        return None
    front = text[3:].split("\n---", 1)[0]
    plain = re.sub(r"[^\n -~]+", "-", front)
    stated = {key: value.strip(" '\"") for key, value in re.findall(r"(?m)^(licen[sc]e|license_name):(.*)$", plain)}
    if not stated:
        return None
    names = (stated.get("license"), stated.get("licence"), stated.get("license_name"))
    named = (name.lower() for name in names if name and name.lower() not in ("other", "unknown", UNNAMED))
    return next(named, UNNAMED)[:MAX_LICENCE_CHARACTERS]


def _titled_licence(text: str) -> str | None:
    head = " ".join(text[:2000].lower().split())
    for words, licence in (
        ("mistral ai non-production license", "mnpl"),
        ("mistral ai research license", "mrl"),
        ("apache license version 2.0", "apache-2.0"),
        ("attribution-noncommercial 4.0", "cc-by-nc-4.0"),
        ("modified mit license", "modified-mit"),
        ("mit license", "mit"),
    ):
        if words in head:
            return licence
    return None


def _matching(files: Mapping[str, int], pattern: re.Pattern[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in files if pattern.fullmatch(name)))


def _are_fused(pickled: tuple[str, ...]) -> bool:
    """consolidated.00.pt, .01.pt and so on, none missing in the middle."""
    return bool(pickled) and pickled == tuple(f"consolidated.{i:02}.pt" for i in range(len(pickled)))


def _present(files: Mapping[str, int], name: str) -> str | None:
    return name if name in files else None


def _refuse_other_weights(files: Mapping[str, int]) -> None:
    for suffix, kind in ((".gguf", "GGUF"), (".bin", "pickled HF"), (".pt", "pickled"), (".pth", "pickled")):
        name = next((name for name in sorted(files) if name.endswith(suffix)), None)
        if name is not None:
            raise UnsupportedArchitecture(
                f"{show(name)} holds {kind} weights, which are not read; use a release with safetensors or Mistral's "
                "own consolidated.00.pth"
            )
