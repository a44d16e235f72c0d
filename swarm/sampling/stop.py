"""Watches a stream of text for the texts that end a generation."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Passes text through until a stop text completes, and never shows any part of that stop text.

    Text that may turn out to be the beginning of a stop text is held back until that is known. What comes out does not
    depend on how the text was cut into pushes: the stop text that completes first wins, and of several that complete
    at the same character the longest.
    """

    __slots__ = ("_held", "_stops", "matched")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None
        """The stop text that ended the stream; None while there was none."""

    @property
    def is_stopped(self) -> bool:
        return self.matched is not None

    def push(self, text: str) -> str:
        """Add generated text; returns what may be shown now. After a match all further text is swallowed."""
        if self.matched is not None:
            return ""
        buffer = self._held + text
        hits = [(buffer.find(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in buffer]
        if hits:
            end, _, self.matched = min(hits)
            self._held = ""
            return buffer[: end - len(self.matched)]
        n_held = max((_overlap(buffer, stop) for stop in self._stops), default=0)
        self._held = buffer[len(buffer) - n_held :]
        return buffer[: len(buffer) - n_held]

    def flush(self) -> str:
        """The text still held back, when the generation ends for another reason."""
        held, self._held = self._held, ""
        return held


def _overlap(buffer: str, stop: str) -> int:
    """The longest proper prefix of `stop` that `buffer` ends with, in characters."""
    return next((n for n in range(min(len(stop) - 1, len(buffer)), 0, -1) if buffer.endswith(stop[:n])), 0)
