"""Publish progress events within one process; without a subscriber, do nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_watchers: list[Callable[[Progress], None]] = []


@dataclass(frozen=True)
class Progress:
    """A moment of one student's run. ``phase`` is a test's name, or the phase of a search.

    A search has ``size`` units in its candidate and made ``probes`` so far. ``refused`` of ``asked`` questions is the
    count of the newest accepted candidate. Before any is accepted, it is the largest count. About ``to_go`` probes are
    left, which take ``rest`` seconds.
    """

    student: str
    phase: str
    size: int | None = None
    probes: int | None = None
    refused: int | None = None
    asked: int | None = None
    to_go: int | None = None
    rest: float | None = None


def subscribe(watcher: Callable[[Progress], None]) -> None:
    """Call *watcher* with every event from now on, in this process."""
    _watchers.append(watcher)


def unsubscribe(watcher: Callable[[Progress], None]) -> None:
    """Stop calling *watcher*."""
    _watchers.remove(watcher)


def publish(moment: Progress) -> None:
    """Call all watchers with *moment*."""
    for watcher in tuple(_watchers):
        watcher(moment)
