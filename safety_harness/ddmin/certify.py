"""The proof at the end: each kept unit is left out once, on the final set itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from safety_harness.ddmin.types import Answer, Plan


def certify(kept: Sequence[int]) -> Plan:
    """Leave out each unit of an accepted set in turn until nothing more can go, whatever the oracle is.

    Units with the oldest evidence come first: they are the likeliest to have become removable. A success
    makes all evidence stale, as it was about a larger set, so counting starts again with the next unit.
    At most len(kept) * (len(kept) + 1) / 2 questions; those that the search has already asked cost nothing.
    """
    queue = deque(kept)
    proven = 0
    while proven < len(queue):
        unit = queue.popleft()
        if (yield frozenset(queue)) is Answer.TRUE:
            proven = 0
        else:
            queue.append(unit)
            proven += 1
    return tuple(queue)
