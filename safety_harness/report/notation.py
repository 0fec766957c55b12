"""Write each check of a student in one notation: before, after, the bound that decides, and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safety_harness.gate.numbers import (
    Attacked,
    Defense,
    Divergence,
    Minimality,
    Must,
    OverRefusal,
    Perplexity,
    Tamper,
    Task,
    UnderTuning,
)
from safety_harness.gate.results import Check
from safety_harness.gate.tamper_check import fewest
from safety_harness.report.cells import NOTHING, count, number

COLUMNS = ("check", "verdict", "before", "after", "bound", "allowed")


def notation(check: Check, gate: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """Return the cells of a check after its name and verdict; None where its numbers are a suite's own, or missing."""
    allowed = gate.get(check.name)
    match check.numbers:
        case Defense(n=int(n)) as one:
            decides = one.labelled.interval if one.labelled else one.after_interval
            low = decides[0] if decides else None
            return count(one.before, n), count(one.after, n), _at("≥ ", low, ".3f"), _at("≥ ", gate.get("dsr"), ".3f")
        case Attacked(n=int(n)) as one:
            low = one.after_interval[0] if one.after_interval else None
            needed = _at("≥ ", gate.get("attacked_dsr"), ".3f")
            return count(one.before, n), count(one.after, n), _at("≥ ", low, ".3f"), needed
        case OverRefusal(n=int(n)) as one:
            rise = _at("rise ≤ ", one.difference_upper, ".3f")
            return count(one.before, n), count(one.after, n), rise, _at("< ", allowed, ".3f")
        case Task(n=int(n)) as one:
            loss = None if one.difference_lower is None else -one.difference_lower
            return count(one.before, n), count(one.after, n), _at("loss ≤ ", loss, ".3f"), _at("< ", allowed, ".3f")
        case Must(n=int(n), after=int(after), needed=int(needed)) as one:
            return count(one.before, n), count(after, n), str(after), f"≥ {needed}"
        case Perplexity(after=float()) as one:
            ratio = _at("ratio ≤ ", one.ratio_upper, ".3f")
            return number(one.before, ".2f"), number(one.after, ".2f"), ratio, _at("≤ ", allowed, ".3f")
        case Divergence(mean=float()) as one:
            return "0", number(one.mean, ".4f"), _at("≤ ", one.upper, ".4f"), _at("≤ ", allowed, ".4f")
        case Minimality(units=int(units), spare=list(spare)):
            return NOTHING, f"{units} units", f"{len(spare)} spare", "0 spare"
        case Tamper(gated=UnderTuning() as gated):
            few, least = fewest(gated), gate.get("tampered_dsr")
            was, now = (count(one.refused, len(one.letters)) for one in (gated.after[0], few))
            needs = "not gated" if least is None else _at("≥ ", least, ".3f")
            return was, now, _at("≥ ", few.interval[0], ".3f"), needs
        case _:
            return None


def _at(sign: str, value: float | None, spec: str) -> str:
    return NOTHING if value is None else f"{sign}{value:{spec}}"
