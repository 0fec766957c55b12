"""Find a small part of a set that still does what the whole set does: delta debugging for an expensive oracle.

    from safety_harness.ddmin import minimize

    reduction = minimize(units, oracle)      # oracle: tuple of units -> bool
    reduction.kept                           # a set that the oracle was seen to accept
    reduction.certificate                    # what was seen for every kept unit

Only the standard library is used. Units are any hashable values and the oracle is any function, so prompts, files,
tests and weights can all be reduced. Every question is asked at most once. A budget or Ctrl-C returns the best set so
far. A set is returned only if the oracle was seen to accept that very set. `Reducer` leaves the loop to its caller: it
hands out questions and takes answers. `minimize_async` awaits its oracle.
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
