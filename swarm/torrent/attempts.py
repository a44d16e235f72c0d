"""What was tried to reach a torrent's peers, and what came of it: the part of an error message that helps."""

from __future__ import annotations

from collections.abc import Callable

_MAX_KEPT = 200
_MAX_SHOWN = 8


class Attempts:
    """A ledger of trackers, peers and web seeds with their last outcome, and a word on the DHT when asked."""

    def __init__(self, describe_dht: Callable[[], str]) -> None:
        self._describe_dht = describe_dht
        self._trackers: dict[str, str] = {}
        self._peers: dict[str, str] = {}
        self._web_seeds: dict[str, str] = {}

    def web_seed(self, url: str, outcome: str) -> None:
        _note(self._web_seeds, url, outcome)

    def tracker(self, url: str, outcome: str) -> None:
        _note(self._trackers, url, outcome)

    def peer(self, address: str, outcome: str) -> None:
        _note(self._peers, address, outcome)

    def report(self) -> str:
        """One line: trackers, peers, web seeds where there are any, DHT, each with its outcome."""
        return "; ".join(
            (
                f"trackers: {_list(self._trackers)}",
                f"peers: {_list(self._peers)}",
                *((f"web seeds: {_list(self._web_seeds)}",) if self._web_seeds else ()),
                f"DHT: {self._describe_dht()}",
            )
        )


def _note(ledger: dict[str, str], key: str, outcome: str) -> None:
    if key in ledger or len(ledger) < _MAX_KEPT:
        ledger[key] = outcome


def _list(ledger: dict[str, str]) -> str:
    if not ledger:
        return "none given"
    shown = [f"{key} ({outcome})" for key, outcome in list(ledger.items())[:_MAX_SHOWN]]
    hidden = len(ledger) - len(shown)
    return ", ".join(shown) + (f" and {hidden} more" if hidden else "")
