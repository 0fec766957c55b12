"""Delta debugging for an expensive oracle: the smallest part of a set that still does what the whole does.

    from safety_harness.ddmin import minimize

    reduction = minimize(units, oracle)      # oracle: tuple of units -> bool
    reduction.kept                           # 1-minimal: no single unit can be left out
    reduction.certificate                    # what was seen for every kept unit

Standard library only; units are any hashable values and the oracle is any function, so it serves
prompts, files, tests or weights alike. Every question is asked once at most, a budget or Ctrl-C
returns the best set so far, and a set that the oracle was not itself seen to accept is never returned.
"""

from __future__ import annotations

from safety_harness.ddmin.errors import (
    ArgumentError,
    BadAnswer,
    DdminError,
    NotReproduced,
    Unresolved,
    partial_result,
)
from safety_harness.ddmin.minimize import STRATEGIES, minimize
from safety_harness.ddmin.types import Event, Evidence, Reduction, Stop

__all__ = [
    "STRATEGIES",
    "ArgumentError",
    "BadAnswer",
    "DdminError",
    "Event",
    "Evidence",
    "NotReproduced",
    "Reduction",
    "Stop",
    "Unresolved",
    "minimize",
    "partial_result",
]
