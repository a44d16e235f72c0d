"""Where the steps of a session ended and what its pages are called: enough to feed its rows on as they were made."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from swarm.pages import PAGE


class Trail:
    """The steps that are cached, from position 0 on: 4 bytes each. Knows no rows and no keys."""

    def __init__(self) -> None:
        self._ends = array("I")
        self._names: dict[int, bytes] = {}

    @property
    def length(self) -> int:
        """Where the last step ended."""
        return self._ends[-1] if self._ends else 0

    def rewind(self, position: int) -> None:
        """Forget what lies behind position; the next step begins there."""
        while self._ends and self._ends[-1] > position:
            self._ends.pop()
        if self.length < position:
            self._ends.append(position)
        for page in [page for page in self._names if (page + 1) * PAGE > position]:
            del self._names[page]

    def add(self, end: int, page_hashes: Sequence[bytes] = ()) -> None:
        """A step ended here. page_hashes: of the pages that it filled up, all or none of them."""
        first_page = end // PAGE - len(page_hashes)
        self._names.update(enumerate(page_hashes, first_page))
        self._ends.append(end)

    def chunks(self, start: int, end: int, most: int | None) -> Iterator[tuple[int, int]]:
        """[start, end) in the very steps in which it came, start and end being ends of some; or, where most is given,
        in pieces of as many positions.
        """
        ends = range(start + most, end, most) if most else [e for e in self._ends if start < e < end]
        for stop in (*ends, end):
            yield start, stop
            start = stop

    def names(self, start: int, end: int) -> tuple[bytes, ...]:
        """Of the pages that positions [start, end) fill up; () unless all of them have one."""
        pages = range(start // PAGE, end // PAGE)
        return tuple(self._names[page] for page in pages) if all(page in self._names for page in pages) else ()
