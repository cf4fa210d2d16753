"""Progress for people: a bar with rate and remaining time on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TextIO

from featstore.wording import visible

Advance = Callable[[int], None]
"""Call it with the number of units just done."""


class Progress(Protocol):
    """Anything that can show how far a stage has come."""

    def __call__(self, label: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
        """Open a stage of ``total`` units; the context's value advances it."""
        ...


def silent(label: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
    """Show nothing."""
    del label, total, unit
    return nullcontext(lambda _: None)


def for_stream(stream: TextIO | None = None) -> Progress:
    """A bar if ``stream`` (default stderr) is a terminal, plain lines otherwise; nothing where there is no stderr."""
    stream = stream or sys.stderr
    if stream is None:
        return silent
    return _bar if stream.isatty() else _lines(stream)


@contextmanager
def _bar(label: str, total: int, unit: str = "images") -> Iterator[Advance]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn(unit),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(visible(label), total=total, rate="")

        def advance(count: int) -> None:
            speed = bars.tasks[0].speed  # of the last half minute
            bars.update(task, advance=count, rate=f"{speed:.1f} {unit}/s" if speed else "")

        yield advance


_WINDOW = 4
"""Lines that a rate looks back over."""


def _lines(stream: TextIO, every: float = 5.0) -> Progress:
    """A line at most every ``every`` seconds; short stages print nothing."""

    @contextmanager
    def stage(label: str, total: int, unit: str = "images") -> Iterator[Advance]:
        label = visible(label)
        last = time.monotonic()
        seen = deque([(last, 0)], maxlen=_WINDOW)  # so that a slow start is forgotten
        done = 0
        if unit == "MB":  # a download says nothing for long, and is worth knowing of before it begins
            print(f"{label} …", file=stream, flush=True)

        def advance(count: int) -> None:
            nonlocal done, last
            done += count
            now = time.monotonic()
            if now - last >= every and done:
                last = now
                rate = (done - seen[0][1]) / (now - seen[0][0])
                seen.append((now, done))
                left = (total - done) / rate
                line = f"{label}: {done}/{total} {unit}, {rate:.1f} {unit}/s, {left:.0f} s left"
                print(line, file=stream, flush=True)

        yield advance

    return stage
