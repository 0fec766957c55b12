"""Check what a search starts from, and where it looks for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from safety_harness.evaluation.budgets import search_budgets
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.oracle import Oracle, Probe
from safety_harness.evaluation.subject import Subject
from safety_harness.gate.records import Budgets
from safety_harness.gate.results import Outcome
from safety_harness.registry.prompts import prompt_set
from safety_harness.search.candidates import GRAINS
from safety_harness.search.course import Course
from safety_harness.search.find import select
from safety_harness.search.priors import Importance
from safety_harness.search.reduce import search
from safety_harness.search.start import Shares
from safety_harness.weights.units import Unit
from tests.refusal_world import entry
from tests.search.probing import accepting, counted, probed


def frugal(oracle: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
    """Refuse one question of six for every three modules, and harmless questions from a dozen modules on."""
    refused, spoilt = min(6, len(units) // 3), len(units) >= 12
    enough = refused >= budgets.target
    over_refused = None if not enough else len(oracle.harmless) if spoilt else 0
    return counted(units, refused, over_refused, enough and not spoilt)


def test_where_nothing_is_enough_the_most_within_budgets_counts(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the patch, its reason, and that it is gated by the refusals that it was searched for."""
    evaluator = open_evaluator(entry(world, search={"grain": "module"}))
    probed(monkeypatch, frugal)
    patch = search(evaluator, "key")
    assert (patch.found, patch.minimal, patch.search.target) == (True, True, 3)
    assert len(patch.units) == 9
    assert "with no more than 3 refusals: no prefix of the teacher's units is acceptable: 6 of 6" in patch.reason
    assert "fails on over-refusal" in patch.reason
    subject = Subject(evaluator, select(evaluator, patch))
    assert subject.minimality(patch).passed
    fewer, more = (
        patch.model_copy(update={"search": patch.search.model_copy(update={"target": target})}) for target in (1, 4)
    )
    assert not subject.minimality(fewer).passed
    check = subject.minimality(more)
    assert (check.outcome, check.numbers["accepted"]) == (Outcome.INCONCLUSIVE, False)


def test_floors_that_no_share_keeps_within_budgets_are_given_up_last(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep the floor of a kind from six modules, or only from where too many harmless questions are refused."""
    for needed, floors, words in ((6, {"fraud": 3}, "4 refusals: no"), (12, {}, "6 refusals and not enough of every")):
        evaluator = open_evaluator(entry(world, search={"grain": "module", "kind_share": 0.5}))
        harmful = evaluator.questions.harmful
        kinds = prompt_set("kinds", [replace(prompt, category="fraud") for prompt in harmful.search])
        evaluator.questions = replace(evaluator.questions, harmful=replace(harmful, search=kinds))

        def floored(_: Oracle, units: Sequence[Unit], budgets: Budgets, needed: int = needed) -> Probe:
            refused = min(6, len(units) // (2 if needed == 6 else 1))
            enough = refused >= budgets.target and (not budgets.floors or len(units) >= needed)
            spoilt = len(units) >= (9 if needed == 6 else 12)
            return counted(units, refused, 6 * spoilt if enough else None, enough and not spoilt)

        probed(monkeypatch, floored)
        patch = search(evaluator, "key")
        assert (patch.found, patch.search.floors) == (True, floors), patch.reason
        assert words in patch.reason
        assert patch.search.target <= 6


def test_the_most_within_budgets_lies_between_shares(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse one question for every hundredth of the parameters, and too many harmless ones from 0.056 on.

    That is between the shares 0.04 and 0.08.
    """
    evaluator = open_evaluator(entry(world))
    total = _parameters(evaluator.units)

    def by_share(_: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
        share = _parameters(units) / total
        refused, spoilt = min(6, int(share / 0.0099)), share > 0.056
        enough = refused >= budgets.target
        return counted(units, refused, 6 * spoilt if enough else None, enough and not spoilt)

    probed(monkeypatch, by_share)
    patch = search(evaluator, "key")
    assert (patch.found, patch.search.target) == (True, 5)
    assert 0.0495 <= patch.parameters / total <= 0.056


def test_where_nothing_is_within_budgets_there_is_no_patch(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse harmless questions from the first module on."""

    def spoilt(oracle: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
        return frugal(oracle, [*units, *12 * list(units[:1])], budgets)

    probed(monkeypatch, spoilt)
    patch = search(open_evaluator(entry(world, search={"grain": "module"})), "key")
    assert (patch.found, patch.units) == (False, ())
    assert "fails on over-refusal" in patch.reason
    assert patch.search.target == patch.search.refused_before + 1  # the last target that was asked for


@pytest.mark.parametrize("wanted", [0.021, 0.03, 0.039, 0.1, 0.5])
def test_a_start_is_hardly_larger_than_what_is_enough(
    world: Path, wanted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check shares between the doubled ones: they are narrowed down to an eighth of the smaller one."""
    evaluator = open_evaluator(entry(world))
    least = wanted * _parameters(evaluator.units)
    sets = probed(monkeypatch, accepting(lambda units: _parameters(units) >= least))
    oracle = Oracle(evaluator)
    budgets = search_budgets(evaluator.student.search, oracle)
    shares = Shares(GRAINS["channel"](evaluator), Course(oracle, "world/plain"), budgets)
    start = shares.smallest_accepted()
    assert start is not None
    assert start.budgets == budgets
    largest = max(unit.parameters // len(unit.channels) for unit in start.units)
    assert least <= _parameters(start.units) <= 1.125 * least + largest
    assert len(sets) <= 12


@pytest.mark.parametrize("grain", GRAINS)
def test_a_search_never_starts_from_more_than_it_may(world: Path, grain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a student for which more would do: the search asks for as many refusals as the largest share gives."""
    evaluator = open_evaluator(entry(world, search={"grain": grain, "max_share": 0.3}))
    least = 0.5 * _parameters(evaluator.units)
    moved: list[int] = []

    def refusing(_: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
        moved.append(_parameters(units))
        refused = 6 if moved[-1] >= least else 3 if units else 0
        accepted = refused >= budgets.target
        return counted(units, refused, 0 if accepted else None, accepted)

    probed(monkeypatch, refusing)
    patch = search(evaluator, "key")
    assert patch.found
    assert patch.search.target == 3
    assert max(moved) <= 0.3 * 2 * least * 1.2  # of modules, a share of their number


def test_a_larger_share_contains_a_smaller_one(world: Path) -> None:
    """Check both grains, and how large a share is."""
    for grain in ("channel", "module"):
        candidates = GRAINS[grain](open_evaluator(entry(world, search={"grain": grain})))
        held: set[tuple[str, int]] = set()
        total = _parameters(candidates.best(1.0))
        for share in (0.0, 0.01, 0.1, 0.5, 0.9, 1.0):
            units = candidates.best(share)
            now = {(unit.module, channel) for unit in units for channel in unit.channels or range(96)}
            assert held <= now
            held = now
            if grain == "channel":
                assert share - 0.01 < _parameters(units) / total <= share
        assert candidates.best(0.0) == ()
        assert candidates.best(1.0) == open_evaluator(entry(world)).units


def _parameters(units: Sequence[Unit]) -> int:
    """Return how many parameters *units* hold."""
    return sum(unit.parameters for unit in units)


def test_the_likeliest_channels_come_first(world: Path) -> None:
    """Compare the scores of the channels in a share with the scores of all others."""
    evaluator = open_evaluator(entry(world))
    importance = Importance(evaluator)
    candidates = GRAINS["channel"](evaluator, importance)
    scores = {
        (unit.module, channel): score
        for unit in evaluator.units
        for channel, score in enumerate(importance.of_channels(unit).tolist())
    }
    chosen = {(unit.module, channel) for unit in candidates.best(0.1) for channel in unit.channels}
    assert 0 < len(chosen) < len(scores)
    assert min(scores[one] for one in chosen) >= max(scores[one] for one in scores.keys() - chosen)
