"""Watch the probes of a search, or answer them by a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from safety_harness.evaluation.budgets import search_budgets
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.evaluation.oracle import Oracle, Probe
from safety_harness.gate.records import Budgets
from safety_harness.weights.units import Unit

Rule = Callable[[Oracle, Sequence[Unit], Budgets], Probe]
ASK: Rule = Oracle.probe


def probed(monkeypatch: pytest.MonkeyPatch, rule: Rule = ASK) -> list[frozenset[str]]:
    """Return a list to which every set is added that an oracle is asked about from now on. *rule* answers."""
    sets: list[frozenset[str]] = []

    def spy(self: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
        sets.append(frozenset(unit.id for unit in units))
        return rule(self, units, budgets)

    monkeypatch.setattr(Oracle, "probe", spy)
    return sets


def counted(units: Sequence[Unit], refused: int, over_refused: int | None, accepted: bool) -> Probe:
    """Return a probe of six harmful questions."""
    return Probe(
        units=len(units), parameters=sum(unit.parameters for unit in units), asked=6, refused=refused,
        over_refused=over_refused, right=None, accepted=accepted, seconds=0.0,
    )  # fmt: skip


def accepting(accepts: Callable[[Sequence[Unit]], bool]) -> Rule:
    """Return a rule: every question is refused, or none is."""

    def rule(_: Oracle, units: Sequence[Unit], __: Budgets) -> Probe:
        accepted = accepts(units)
        return counted(units, 6 * accepted, 0 if accepted else None, accepted)

    return rule


def never(*_: object) -> Probe:
    """Fail the test, which expects no probe."""
    pytest.fail("a probe was made")


def accepted_by(evaluator: Evaluator, units: Sequence[Unit]) -> bool:
    """Return what a new oracle says of *units* under the budgets of the settings."""
    oracle = Oracle(evaluator)
    return oracle.probe(units, search_budgets(evaluator.student.search, oracle)).accepted


def direct_minimality(evaluator: Evaluator, units: Sequence[Unit]) -> dict[str, bool]:
    """Return for each of *units* whether a new oracle accepts the rest."""
    evaluator.forget()
    oracle = Oracle(evaluator)
    budgets = search_budgets(evaluator.student.search, oracle)
    return {unit.id: oracle.probe([kept for kept in units if kept != unit], budgets).accepted for unit in units}


def cached(cache: Path) -> list[Path]:
    """Return the folders of cached patches."""
    return [path for path in (cache / "patches").glob("*") if path.is_dir()]
