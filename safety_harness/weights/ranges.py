"""Write ascending numbers in short, as ``3,40-43``, and read them without listing a billion."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence


def ranges(channels: Sequence[int]) -> str:
    """Return ascending numbers in short: ``3,40-43``."""
    alike = itertools.groupby(enumerate(channels), key=lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(members) for _, members in alike)]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def runs(text: str) -> Iterable[tuple[int, int]]:
    """Yield the first and the last number of each run in a text of :func:`ranges`."""
    for run in text.split(","):
        first, _, last = run.partition("-")
        yield int(first), int(last or first)


def count(text: str) -> int:
    """Return how many numbers a *text* of :func:`ranges` has, without listing them."""
    return sum(last - first + 1 for first, last in runs(text))


def ascending(text: str, width: int) -> bool:
    """Return whether the runs of a *text* of :func:`ranges` ascend, and all of their numbers are below *width*."""
    before = -1
    for first, last in runs(text):
        if not before < first <= last < width:
            return False
        before = last
    return True


def numbers(text: str) -> Iterable[int]:
    """Yield the numbers of a *text* of :func:`ranges`."""
    for first, last in runs(text):
        yield from range(first, last + 1)
