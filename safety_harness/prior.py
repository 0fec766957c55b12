"""Priors: how much a unit is likely to matter, so that the search tries to do without the unlikely ones first.

A prior orders the search and never decides: the oracle does.
"""

from __future__ import annotations

import math

from safety_harness.bench import Bench
from safety_harness.errors import ConfigError


def importance(bench: Bench) -> list[float]:
    """One number a unit of *bench*, larger for a likelier one, by the prior that its settings name.

    Raises:
        ConfigError: the prior's name is not known.
    """
    name = bench.student.family.search.prior
    if name not in PRIORS:
        raise ConfigError(f"Unknown prior {name!r}. Known: {', '.join(PRIORS)}.")
    return PRIORS[name](bench)


def difference_norm(bench: Bench) -> list[float]:
    """Root mean square of teacher minus student over a unit's numbers.

    Cheap, and good where the student descends from the teacher; on a student that was tuned apart from the
    teacher it measures the student's own tuning.
    """
    return [float(bench.transplanter.difference(unit).norm()) / math.sqrt(unit.parameters) for unit in bench.units]


PRIORS = {"norm": difference_norm}
