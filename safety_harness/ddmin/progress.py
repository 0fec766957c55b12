"""Draw how far a reduction is, for people who watch a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from safety_harness.ddmin.types import Event

_BAR_COLUMNS = 24
_PAUSE_SECONDS = 0.1  # between two drawings: faster is not readable, and costs time


class Progress:
    """A live line that shows events; silent if the stream is not a terminal. Pass it as `on_event`.

        with Progress() as progress:
            minimize(units, oracle, on_event=progress)

    The bar compares the calls made with all calls: those made and those still to come, by the search's own estimate.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._drawn = 0.0
        self._full = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """End the line."""
        if self._live and self._drawn:
            self._stream.write("\n")
            self._stream.flush()

    def __call__(self, event: Event) -> None:
        """Draw the event. Skip it shortly after another drawing, unless a smaller set was accepted."""
        self._full = max(self._full, event.size)
        now = time.monotonic()
        if not self._live or (now - self._drawn < _PAUSE_SECONDS and event.kind != "accepted"):
            return
        self._drawn = now
        self._stream.write(f"\r\x1b[K{line(event, self._full)}")
        self._stream.flush()


def line(event: Event, full: int) -> str:
    """Format an event of a reduction of `full` units."""
    all_calls = event.calls + event.estimate
    done = round(_BAR_COLUMNS * event.calls / all_calls) if all_calls else 0
    bar = "#" * done + "-" * (_BAR_COLUMNS - done)
    units = f"{event.best or full} of {full} units"
    return f"{event.phase:<7} [{bar}] {units}, {event.calls} calls, about {event.estimate} to go"
