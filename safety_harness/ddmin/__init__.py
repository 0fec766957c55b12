"""Delta debugging for an expensive oracle: the smallest part of a set that still does what the whole does.

    from safety_harness.ddmin import minimize

    reduction = minimize(units, oracle)      # oracle: tuple of units -> bool
    reduction.kept                           # a set that the oracle was seen to accept
    reduction.certificate                    # what was seen for every kept unit

Standard library only; units are any hashable values and the oracle is any function, so it serves prompts,
files, tests or weights alike. Every question is asked once at most, a budget or Ctrl-C returns the best set
so far, and a set that the oracle was not itself seen to accept is never returned. `Reducer` is the same
without a loop: it asks and is told; `minimize_async` awaits its oracle.
"""

from __future__ import annotations

from safety_harness.ddmin.aio import minimize_async
from safety_harness.ddmin.errors import (
    ArgumentError,
    BadAnswer,
    DdminError,
    JournalError,
    NotReproduced,
    Unresolved,
    partial_result,
)
from safety_harness.ddmin.minimize import minimize
from safety_harness.ddmin.options import Options
from safety_harness.ddmin.progress import Progress
from safety_harness.ddmin.reducer import Ask, Reducer
from safety_harness.ddmin.sprt import Noise, Scores
from safety_harness.ddmin.strategies import STRATEGIES
from safety_harness.ddmin.types import Answer, Event, Evidence, Level, Reduction, Stop

__all__ = [
    "STRATEGIES",
    "Answer",
    "ArgumentError",
    "Ask",
    "BadAnswer",
    "DdminError",
    "Event",
    "Evidence",
    "JournalError",
    "Level",
    "Noise",
    "NotReproduced",
    "Options",
    "Progress",
    "Reducer",
    "Reduction",
    "Scores",
    "Stop",
    "Unresolved",
    "minimize",
    "minimize_async",
    "partial_result",
]
