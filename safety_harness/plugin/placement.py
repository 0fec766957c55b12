"""Deal GPUs to the workers of a run, so that no GPU holds more students than it has room for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from safety_harness.evaluation.gpus import Gpu


@dataclass(frozen=True)
class Share:
    """What one worker gets: GPUs, and how many bytes a student of it may take there."""

    gpus: tuple[Gpu, ...]
    room: float


def deal(needs: Sequence[int], gpus: Sequence[Gpu], most: int) -> list[Share]:
    """Return up to *most* shares of *gpus*, one for each of *needs* that has room next to the others.

    The largest need comes first, on the GPU with fewest workers and then most room. A need without room waits for a
    share that was dealt before. A need that exceeds every GPU gets several, or all of them where even all are too
    small. A GPU whose memory is unknown is one share.

    Args:
        needs: the bytes that each student takes.
    """
    left = {gpu: math.inf if gpu.free is None else float(gpu.free) for gpu in gpus}
    largest = max(left.values())
    shares: list[Share] = []
    for need in sorted(needs, reverse=True):
        if len(shares) == most:
            break
        chosen = _several(need, left) if need > largest else _one(need, left, shares)
        if not chosen and shares:
            continue
        chosen = chosen or list(left)  # or nothing would ever be measured
        room = sum(left[gpu] for gpu in chosen)
        # Layers of one model may fill several GPUs.
        taken = need if len(chosen) == 1 and room < math.inf else room
        left.update({gpu: 0.0 if taken == room else max(0.0, left[gpu] - taken) for gpu in chosen})
        shares.append(Share(tuple(chosen), max(need, taken)))
    return _with_the_rest(shares, left)


def _one(need: int, left: Mapping[Gpu, float], shares: Sequence[Share]) -> list[Gpu]:
    """Return the GPU for *need*: of those with room, one with fewest *shares*, and then with most room."""
    fitting = [gpu for gpu, room in left.items() if room >= need]
    return sorted(fitting, key=lambda gpu: (sum(gpu in share.gpus for share in shares), -left[gpu]))[:1]


def _several(need: int, left: Mapping[Gpu, float]) -> list[Gpu]:
    """Return the fewest GPUs that have room for *need* together; none where all of them have too little."""
    roomiest = sorted(left, key=lambda gpu: -left[gpu])
    firsts = (roomiest[:count] for count in range(1, len(roomiest) + 1))
    return next((some for some in firsts if sum(left[gpu] for gpu in some) >= need), [])


def _with_the_rest(shares: Sequence[Share], left: Mapping[Gpu, float]) -> list[Share]:
    """Return *shares* with what is *left* of each GPU added to the smallest share of it: larger students may follow."""
    rest = dict(left)
    return [
        replace(share, room=share.room + sum(rest.pop(gpu, 0.0) for gpu in share.gpus)) for share in reversed(shares)
    ][::-1]
