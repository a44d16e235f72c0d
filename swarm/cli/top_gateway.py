"""What a gateway's /metrics tells about the present moment: requests that run and wait, and tokens per second."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swarm.errors import BadArgument

RUNNING = "swarm:num_requests_running"
WAITING = "swarm:num_requests_waiting"
GENERATED = "swarm:generation_tokens_total"

ANSWER_TIMEOUT_S = 3.0
MAX_ANSWER_BYTES = 4 << 20

ANOTHER = "start one with `swarm gateway MAGNET`, or name the one that runs with --gateway URL"

_SAMPLE = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{[^\n]*\})?[ \t]+(?P<value>\S+)(?:[ \t]+\S+)?[ \t]*")


@dataclass(frozen=True, slots=True)
class GatewayLook:
    """running, waiting: requests, of all models. tokens_per_s: given since the look before; None at the first.

    fault: why there are no figures this time, "" when there are.
    """

    running: int = 0
    waiting: int = 0
    tokens_per_s: float | None = None
    fault: str = ""

    def fields(self) -> dict[str, Any]:
        if self.fault:
            return {"fault": self.fault}
        return {"running": self.running, "waiting": self.waiting, "tokens_per_s": self.tokens_per_s}


class Gateway:
    """A gateway that is asked for its metrics. url: its root, such as http://127.0.0.1:8000. Raises: BadArgument."""

    def __init__(self, url: str, api_key: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise BadArgument(f"{url!r} is not a gateway's address; write its root, such as http://127.0.0.1:8000")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise BadArgument("the gateway's --api-key has characters that no HTTP header can carry; copy it once more")
        self._url = url.rstrip("/").removesuffix("/v1")
        self._request = urllib.request.Request(self._url + "/metrics")
        if api_key:
            self._request.add_unredirected_header("Authorization", f"Bearer {api_key}")
        self._clock = clock
        self._before: tuple[float, float] | None = None  # (when, tokens generated until then)

    def look(self) -> GatewayLook:
        """Its figures now. One that does not answer is a `fault` and no error: it may be back at the next look."""
        try:
            with urllib.request.urlopen(self._request, timeout=ANSWER_TIMEOUT_S) as answer:
                text = answer.read(MAX_ANSWER_BYTES).decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            error.close()
            mend = "name its key with --api-key" if error.code in (401, 403) else ANOTHER
            return GatewayLook(fault=f"{self._url} answered {error.code}; {mend}")
        except (OSError, http.client.HTTPException) as error:
            return GatewayLook(fault=f"{self._url} does not answer ({reason_of(error)}); {ANOTHER}")
        sums = sum_samples(text, (RUNNING, WAITING, GENERATED))
        if missing := [name for name, value in sums.items() if value is None]:
            return GatewayLook(fault=f"{self._url} is no gateway, its metrics lack {', '.join(missing)}; {ANOTHER}")
        running, waiting, generated = (value or 0.0 for value in sums.values())
        return GatewayLook(int(running), int(waiting), self._rate(generated))

    def _rate(self, generated: float) -> float | None:
        now_s, before = self._clock(), self._before
        self._before = (now_s, generated)
        if before is None or now_s <= before[0] or generated < before[1]:  # the last: it was started anew
            return None
        return (generated - before[1]) / (now_s - before[0])


def reason_of(error: Exception) -> str:
    """Why a request failed, in the system's words where it has some."""
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__


def sum_samples(text: str, names: tuple[str, ...]) -> dict[str, float | None]:
    """Each metric's sum over all its labels: 0 for one that is declared only, None for one that is not there.

    Source: Prometheus text format 0.0.4.
    """
    sums: dict[str, float | None] = dict.fromkeys(names)
    for line in text.splitlines():
        if line.startswith("# TYPE ") and (name := line.split()[2]) in sums:
            sums[name] = sums[name] or 0.0
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None or match["name"] not in sums:
            continue
        try:
            sums[match["name"]] = (sums[match["name"]] or 0.0) + float(match["value"])
        except ValueError:
            continue
    return sums
