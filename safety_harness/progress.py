"""Publish how far a long piece of work is, within one process; without a subscriber, do nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_watchers: list[Callable[[Progress], None]] = []
# Whether a counter is running: only the outermost one says how long all of it takes.
_counting: list[str] = []


@dataclass(frozen=True)
class Progress:
    """A moment of one student's run. ``phase`` is a test's name, or what is being done.

    Work that is counted has ``done`` of ``of``. A search has ``size`` units in its candidate and made ``probes`` so
    far. ``refused`` of ``asked`` questions is the count of the newest accepted candidate. Before any is accepted, it is
    the largest count. About ``to_go`` probes are left. ``rest`` is an estimate of the seconds that are left.
    """

    student: str
    phase: str
    size: int | None = None
    probes: int | None = None
    refused: int | None = None
    asked: int | None = None
    to_go: int | None = None
    rest: float | None = None
    done: int | None = None
    of: int | None = None


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


def counted(phase: str, items: Iterable[T], of: int) -> Iterator[T]:
    """Yield *items*, and publish how many of them are done and how long the rest takes.

    Counters inside of another one are silent.
    """
    with counter(phase, of) as advance:
        for item in items:
            yield item
            advance(1)


@contextlib.contextmanager
def counter(phase: str, of: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that adds to what is done, and publishes it with an estimate of the time that is left."""
    begun, done, outermost = time.monotonic(), 0, not _counting

    def advance(by: int) -> None:
        nonlocal done
        done += by
        if outermost:
            rest = (time.monotonic() - begun) / done * (of - done) if done else None
            publish(Progress("", phase, rest=rest, done=done, of=of))

    with alone(phase):
        advance(0)
        yield advance


@contextlib.contextmanager
def alone(phase: str) -> Iterator[None]:
    """Silence counters inside of the block, which publishes its own progress."""
    _counting.append(phase)
    try:
        yield
    finally:
        _counting.pop()


def words(moment: Progress) -> str:
    """Return what is counted in words, ``asking 12/96``; the phase alone where nothing is counted."""
    return moment.phase if moment.done is None else f"{moment.phase} {moment.done}/{moment.of}"
