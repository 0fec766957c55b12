"""The default search: remove runs whose length follows the evidence, and bisect where a run fails.

Adaptive group testing with a learnt rate. Each failed run costs a binary search that ends at one required
unit, together with the very question that shows it: everything still held, without that unit, was refused.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from safety_harness.ddmin.predict import RunForecast
from safety_harness.ddmin.types import Answer, Plan, Question


def adaptive(order: Sequence[int]) -> Plan:
    """Exact core of a monotone oracle; for others an accepted set that certification still has to finish.

    At most n * (1 + ceil(log2 n)) questions for n units: each step settles at least one unit.
    """
    pool = list(order)
    kept: list[int] = []
    forecast = RunForecast(len(pool))
    while pool:
        length = _run_length(forecast, len(pool))
        if (yield frozenset(kept + pool[length:])) is Answer.TRUE:
            forecast.removed(length)
            pool = pool[length:]
        else:
            removable = yield from _bisect(kept, pool, length, forecast)
            forecast.removed(removable)
            forecast.required()
            kept.append(pool[removable])
            pool = pool[removable + 1 :]
    return kept


def _run_length(forecast: RunForecast, limit: int) -> int:
    """The longest run with at least an even chance to go, as that tells most; 1 if there is none."""
    good, bad = 1, limit + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if forecast.survival(middle) >= 0.5:
            good = middle
        else:
            bad = middle
    return good


def _bisect(kept: list[int], pool: list[int], refused: int, forecast: RunForecast) -> Generator[Question, Answer, int]:
    """How many leading units of the pool can go, given that `refused` of them cannot."""
    accepted = 0
    while refused - accepted > 1:
        middle = _even_split(forecast, accepted, refused)
        if (yield frozenset(kept + pool[middle:])) is Answer.TRUE:
            accepted = middle
        else:
            refused = middle
    return accepted


def _even_split(forecast: RunForecast, accepted: int, refused: int) -> int:
    """The length in between that the forecast finds as likely to be refused as to be accepted."""
    target = (forecast.survival(accepted) + forecast.survival(refused)) / 2
    low, high = accepted, refused  # survival(low) > target >= survival(high)
    while high - low > 1:
        middle = (low + high) // 2
        if forecast.survival(middle) > target:
            low = middle
        else:
            high = middle
    return min(max(high, accepted + 1), refused - 1)
