"""How things look: sizes, rates and times for people, JSON lines for programs, and progress that suits where it goes.

Results go to stdout and progress to stderr. On a terminal progress is a bar; elsewhere it is a line every few seconds.
NO_COLOR is honoured. Does NOT know what it shows.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

WAITING_LOG = "swarm.torrent.download"
"""The logger that says whom a torrent's metadata is waited for from."""

LINE_INTERVAL_S = 5.0
"""How often progress writes a line where there is no terminal: rarer hides a stall, more often floods a log."""


def format_size(size_bytes: float) -> str:
    """Decimal units, three digits: `117 MB`, `93.4 GB`."""
    return scaled(size_bytes, ("B", "kB", "MB", "GB", "TB", "PB"))


def format_piece_size(size_bytes: int) -> str:
    """Pieces are powers of two, and named so: `256 KiB`, `4 MiB`."""
    return f"{size_bytes >> 20} MiB" if size_bytes >= 1 << 20 else f"{size_bytes >> 10} KiB"


def format_rate(bytes_per_s: float) -> str:
    return f"{format_size(bytes_per_s)}/s"


def format_count(count: float) -> str:
    """`46.7 B` for 46 702 792 704: the unit that people name models by."""
    return scaled(count, ("", "K", "M", "B", "T")).rstrip()


def scaled(value: float, units: tuple[str, ...]) -> str:
    for unit in units:
        is_last = unit == units[-1]
        if abs(value) < 999.5 or is_last:
            digits = 0 if unit == units[0] or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
            return f"{value:.{digits}f} {unit}"
        value /= 1000
    raise AssertionError("units is empty")


def format_duration(seconds: float) -> str:
    """`850 ms`, `12.3 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.{0 if seconds >= 0.00995 else 1}f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_percent(part: float, whole: float) -> str:
    """Never `100%` before it is all there, and never `0%` once there is some."""
    if whole <= 0:
        return "-"
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "<1%"
    return f"{int(percent)}%" if percent < 100 else "100%"


def print_json(schema: str, fields: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout, its `schema` first, flushed so that a reading program sees it now."""
    click.echo(json.dumps({"schema": schema, **fields}, ensure_ascii=False))
    sys.stdout.flush()


def print_event(schema: str, event: str, **fields: Any) -> None:
    """One line of NDJSON for a command that runs for long."""
    print_json(schema, {"event": event, **fields})


def note(text: str) -> None:
    """A line for the person watching: stderr, so that it never mixes with a result."""
    click.echo(text, err=True)


@contextlib.contextmanager
def noted_after(quiet_s: float, text: str) -> Iterator[None]:
    """A note while the block goes on for longer than quiet_s: nobody should wonder what a silent command does."""
    timer = threading.Timer(quiet_s, note, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def note_logs(*names: str) -> None:
    """Show what these loggers say, from INFO on, to the person watching: what is waited for, which nodes were lost."""
    import logging

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage())

    for name in names:
        log = logging.getLogger(name)
        log.handlers, log.propagate = [Notes()], False
        log.setLevel(logging.INFO)


@contextlib.contextmanager
def streamed_text(*names: str) -> Iterator[Callable[[str], None]]:
    """A function that writes text to stdout as it comes. What note_logs shows of these loggers meanwhile begins on a
    line of its own; the break goes to stderr, and stdout holds the text alone.
    """
    import logging

    is_within_a_line = False

    def write(text: str) -> None:
        nonlocal is_within_a_line
        click.echo(text, nl=False)
        sys.stdout.flush()
        is_within_a_line = not text.endswith("\n") if text else is_within_a_line

    def break_line(record: logging.LogRecord) -> bool:
        nonlocal is_within_a_line
        if is_within_a_line:
            note("")
        is_within_a_line = False
        return True

    handlers = [handler for name in names for handler in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(break_line)
    try:
        yield write
    finally:
        for handler in handlers:
            handler.removeFilter(break_line)


def out_console() -> Console:
    """For tables. Where stdout is no terminal they are as wide as they need to be: a file has no edge."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 500)


def err_console() -> Console:
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False)


class ProgressMeter:
    """Shows one amount growing towards a total on stderr, as a bar on a terminal and as occasional lines elsewhere.

    total: 0 while unknown. show: turns an amount into words. Use as a context manager; update() may be called at any
    rate and from any thread.
    """

    def __init__(
        self,
        title: str,
        total: float = 0,
        *,
        show: Callable[[float], str] = format_size,
        interval_s: float = LINE_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.total = total
        self._show = show
        self._interval_s = interval_s
        self._clock = clock
        self._last_line_s = clock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[words]}"),
            )
            self._bar = Progress(*columns, console=err_console(), transient=True)
            self._task = self._bar.add_task(self.title, total=self.total or None, words="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float, extra: str = "", total: float | None = None) -> None:
        """Show that `done` of the total is there; `extra` is appended (a rate, a number of peers)."""
        if total is not None:
            self.total = total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=self.total or None, words=self._words(done, extra))
            return
        now_s = self._clock()
        if now_s - self._last_line_s >= self._interval_s:
            self._last_line_s = now_s
            note(f"{self.title}: {self._words(done, extra)}")

    def _words(self, done: float, extra: str) -> str:
        amount = self._show(done)
        if self.total:
            amount = f"{amount} of {self._show(self.total)} ({format_percent(done, self.total)})"
        return f"{amount}, {extra}" if extra else amount


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """A function that shows the present state on stderr: in place on a terminal, elsewhere as lines, none twice."""
    if sys.stderr.isatty():
        with err_console().status("") as status:
            yield status.update
        return
    shown = ""

    def show(text: str) -> None:
        nonlocal shown
        if text != shown:
            shown = text
            note(text)

    yield show
