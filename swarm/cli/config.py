"""Defaults for flags from a TOML file, checked whole: an unknown key or a wrong type is an error, never ignored.

    network = "lan"                      # --network
    bootstrap = ["198.51.100.7:6881"]    # --bootstrap
    peer = ["198.51.100.8:7000"]         # --peer
    timeout_s = 90                       # --timeout
    data_dir = "/srv/swarm"              # --data-dir

    [generate]                           # generate and chat
    max_tokens = 512
    temperature = 0.7
    top_p = 0.95
    top_k = 50
    min_p = 0.05

Flags win over SWARM_… in the environment, which wins over this file. Does NOT check values beyond their type: the
flag that a key stands for does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.errors import BadArgument


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the file. param: the click parameter that it is the default of. kind: what TOML must hold."""

    param: str
    kind: type | tuple[type, ...]
    words: str
    is_list: bool = False


SHARED = {
    "network": Setting("network", str, "a string"),
    "bootstrap": Setting("bootstrap", str, "a list of strings", is_list=True),
    "peer": Setting("peers", str, "a list of strings", is_list=True),
    "timeout_s": Setting("timeout_s", (int, float), "a number of seconds"),
    "data_dir": Setting("data_dir", str, "a string"),
}
GENERATE = {
    "max_tokens": Setting("max_tokens", int, "a whole number"),
    "temperature": Setting("temperature", (int, float), "a number"),
    "top_p": Setting("top_p", (int, float), "a number"),
    "top_k": Setting("top_k", int, "a whole number"),
    "min_p": Setting("min_p", (int, float), "a number"),
}


def default_path() -> Path:
    from platformdirs import user_config_path

    return user_config_path("mistral-swarm") / "config.toml"


def load_defaults(path: Path | None) -> dict[str, Any]:
    """Click's default_map from the config file: `path`, which must exist, or else the user's own where there is one.

    Raises: BadArgument naming the file, the key and what is allowed.
    """
    source = default_path() if path is None else path
    try:
        text = source.read_bytes()
    except FileNotFoundError:
        if path is None:
            return {}
        raise BadArgument(
            f"there is no config file {path}; create it, or leave --config and SWARM_CONFIG out"
        ) from None
    except OSError as error:
        raise BadArgument(f"the config file {source} cannot be read: {error.strerror}") from error
    return defaults_from_toml(text, str(source))


def defaults_from_toml(text: bytes, source: str) -> dict[str, Any]:
    """The file's text as {verb: {parameter: value}}. Raises: BadArgument."""
    import tomllib

    try:
        document = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadArgument(f"{source} is not TOML: {error}") from error
    table = document.pop("generate", {})
    if not isinstance(table, dict):
        raise BadArgument(f"{source}: generate must be a table; write [generate]")
    shared = read_table(document, SHARED, source, "")
    reach = {param: value for param, value in shared.items() if param in ("network", "bootstrap", "timeout_s")}
    sampling = read_table(table, GENERATE, source, "generate.")
    return {
        "generate": {**shared, **sampling},
        "chat": {**shared, **sampling},
        "status": shared,
        "netcheck": {param: value for param, value in shared.items() if param != "data_dir"},
        "top": shared,
        "release": {"inspect": reach, "plan": reach, "seed": reach},
        "node": {"start": shared},
    }


def read_table(table: Mapping[str, Any], settings: Mapping[str, Setting], source: str, prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in table.items():
        setting = settings.get(key)
        if setting is None:
            raise BadArgument(
                f"{source}: unknown key {prefix}{key}; known keys: {', '.join(prefix + k for k in settings)}"
            )
        items = value if setting.is_list and isinstance(value, list) else [value]
        is_wrong = setting.is_list != isinstance(value, list) or any(
            isinstance(item, bool) or not isinstance(item, setting.kind) for item in items
        )
        if is_wrong:
            raise BadArgument(f"{source}: {prefix}{key} must be {setting.words}, not {value!r}")
        values[setting.param] = value
    return values
