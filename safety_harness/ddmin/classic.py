"""The original algorithm, for comparison.

Zeller & Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002: ddmin.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from safety_harness.ddmin.types import Answer, Plan


def ddmin(order: Sequence[int]) -> Plan:
    """Try each chunk alone, then all but each; without success halve the chunks, down to single units.

    The paper leaves the order of the chunks open: here the most important are the first to be tried alone,
    and the least important the first to be left out.
    """
    current = list(order)
    chunks = 2
    while len(current) >= 2:
        parts = _split(current, chunks)
        for part in reversed(parts):
            if (yield frozenset(part)) is Answer.TRUE:
                current, chunks = part, 2
                break
        else:
            for part in parts:
                rest = frozenset(current).difference(part)
                if (yield rest) is Answer.TRUE:
                    current, chunks = [i for i in current if i in rest], max(chunks - 1, 2)
                    break
            else:
                if chunks >= len(current):
                    break
                chunks = min(2 * chunks, len(current))
    return current


def _split(items: Sequence[int], parts: int) -> list[list[int]]:
    """`parts` runs of neighbours, lengths differing by one at most; none empty if parts <= len(items)."""
    bounds = [len(items) * k // parts for k in range(parts + 1)]
    return [list(items[a:b]) for a, b in pairwise(bounds)]
