"""A line that tells how far a reduction is, for people who watch a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from safety_harness.ddmin.types import Event

_WIDTH = 24
_PAUSE = 0.1  # seconds between two drawings: faster is not readable, and costs time


class Progress:
    """Draws events as one live line; silent if the stream is not a terminal. Pass it as `on_event`.

        with Progress() as progress:
            minimize(units, oracle, on_event=progress)

    The bar shows the calls made against those made and still to come, by the search's own estimate.
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
        """Draw, unless that has just been done."""
        self._full = max(self._full, event.size)
        now = time.monotonic()
        if not self._live or (now - self._drawn < _PAUSE and event.kind != "accepted"):
            return
        self._drawn = now
        self._stream.write(f"\r\x1b[K{line(event, self._full)}")
        self._stream.flush()


def line(event: Event, full: int) -> str:
    """What is shown for an event of a reduction of `full` units."""
    whole = event.calls + event.estimate
    done = round(_WIDTH * event.calls / whole) if whole else 0
    bar = "#" * done + "-" * (_WIDTH - done)
    units = f"{event.best or full} of {full} units"
    return f"{event.phase:<7} [{bar}] {units}, {event.calls} calls, about {event.estimate} to go"
