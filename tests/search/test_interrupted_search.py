"""Check searches that are cut short: void probes, spent budgets, Ctrl-C, and a process that is killed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from safety_harness.errors import VoidProbe
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.oracle import Oracle, Probe
from safety_harness.evaluation.subject import Subject
from safety_harness.gate.records import Budgets, Patch
from safety_harness.gate.results import Outcome
from safety_harness.progress import Progress, subscribe, unsubscribe
from safety_harness.search.course import Course
from safety_harness.search.find import find_patch, select
from safety_harness.search.reduce import search
from safety_harness.weights.units import Unit
from tests.deaths import deaths
from tests.evaluation.scripted import COMPLIED, REFUSED, UNSCORED, Scripted
from tests.refusal_world import entry
from tests.search.probing import ASK, accepted_by, cached, direct_minimality, probed

# --- Void probes and spent budgets ----------------------------------------------------------------


def test_a_void_prefix_does_not_end_the_search(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the first shares void: the search looks at larger ones."""

    def first_prefixes_void(oracle: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
        if 0 < len(units) <= 2:
            raise VoidProbe("babble")
        return ASK(oracle, units, budgets)

    evaluator = open_evaluator(entry(world, search={"grain": "module"}))
    sets = probed(monkeypatch, first_prefixes_void)
    patch = search(evaluator, "key")
    assert [len(units) for units in sets[:4]] == [0, 1, 2, 4]
    assert patch.found
    assert patch.probes == len(patch.course) + sum(0 < len(units) <= 2 for units in sets)
    monkeypatch.undo()
    assert accepted_by(evaluator, select(evaluator, patch))


def test_a_void_removal_is_unresolved_and_not_minimal(
    world: Path, default_patch: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make every probe void that lacks one needed unit."""
    needed = default_patch.units[0]

    def void_without(oracle: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
        if 2 < len(units) < 21 and needed not in {unit.id for unit in units}:
            raise VoidProbe("babble")
        return ASK(oracle, units, budgets)

    evaluator = open_evaluator(entry(world))
    probed(monkeypatch, void_without)
    patch = search(evaluator, "key")
    assert patch.certificate[needed] == "unresolved"
    assert not patch.minimal
    check = Subject(evaluator, select(evaluator, patch)).minimality(patch)
    assert check.outcome is Outcome.INCONCLUSIVE
    assert check.numbers["void"] == [needed]


def test_a_spent_budget_gives_an_honest_patch(world: Path, norm_patch: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that a patch claims no more than was tested, and that the gate finds what is spare."""
    chosen = entry(world, search={"max_probes": 22, "prior": "norm"})
    assert norm_patch.probes > 22
    evaluator = open_evaluator(chosen)
    sets = probed(monkeypatch)
    patch = find_patch(evaluator)
    assert len(sets) == patch.probes == 22
    assert patch.found
    assert not patch.minimal
    assert patch.reason == "search stopped early: calls"
    assert "untested" in patch.certificate.values()
    assert len(patch.units) >= len(norm_patch.units)
    monkeypatch.undo()
    fresh = open_evaluator(chosen)
    units = select(fresh, patch)
    assert accepted_by(fresh, units)
    without = direct_minimality(fresh, units)
    assert not any(without[unit] for unit, seen in patch.certificate.items() if seen == "tested")
    check = Subject(fresh, units).minimality(patch)
    assert check.numbers["spare"] == [unit for unit, accepted in without.items() if accepted]
    assert check.passed == (not any(without.values()))


# --- Interrupts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 4, 12, 22])
def test_ctrl_c_propagates_and_nothing_half_done_is_kept(
    world: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Press Ctrl-C while units are moved; then search again."""
    evaluator = open_evaluator(entry(world, search={"prior": "norm"}))
    before = {name: tensor.clone() for name, tensor in evaluator.generator.model.state_dict().items()}

    def pressed(oracle: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
        if len(sets) == at:
            with evaluator.transplanter.transplanted(units):
                raise KeyboardInterrupt
        return ASK(oracle, units, budgets)

    sets = probed(monkeypatch, pressed)
    with pytest.raises(KeyboardInterrupt):
        find_patch(evaluator)
    assert len(sets) == at
    assert cached(cache) == []
    assert all(torch.equal(before[n], t) for n, t in evaluator.generator.model.state_dict().items())
    monkeypatch.undo()
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(cache))
    assert find_patch(evaluator).minimal


@pytest.mark.parametrize("at", [21, 23])
def test_a_killed_search_asks_nothing_twice(
    world: Path, cache: Path, norm_patch: Patch, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Kill delta debugging, and go on from its journal.

    The start (the student, and prefixes of the prior) is asked again: it decides which journal is meant.
    """
    chosen = entry(world, search={"prior": "norm"})

    def killed(oracle: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
        if len(sets) == at:
            raise SystemExit
        return ASK(oracle, units, budgets)

    sets = probed(monkeypatch, killed)
    with pytest.raises(SystemExit):
        find_patch(open_evaluator(chosen))
    before = sets[:-1]
    assert len(list((cache / "patches").glob("*.journal"))) == 1

    sets = probed(monkeypatch)
    resumed = find_patch(open_evaluator(chosen))
    facts = (resumed.units, resumed.certificate, resumed.probes)
    assert facts == (norm_patch.units, norm_patch.certificate, norm_patch.probes)
    twice = [units for units in sets if units in before]
    assert len(sets) + len(before) - len(twice) == norm_patch.probes
    assert twice == before[: len(twice)]
    assert all(any(units < start for start in twice) for units in before[len(twice) :])
    assert list((cache / "patches").glob("*.journal")) == []


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_a_search_that_dies_at_any_change_is_resumed(
    world: Path, cache: Path, norm_patch: Patch, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Expect the same patch from the next search, no question that the journal holds, and nothing left over."""
    chosen, sets, died = entry(world, search={"prior": "norm"}), probed(monkeypatch), 0
    volatile = {"key", "seconds", "course"}  # the course has no probe of the search that was killed
    folder = cache / "patches"
    for _ in deaths(lambda: find_patch(open_evaluator(chosen)), every=every):
        died += every
        answered = [journal.read_bytes().count(b"\n") - 1 for journal in folder.glob("*.journal")]
        kept = bool(list(folder.glob("*/patch.json")))
        sets.clear()
        patch = find_patch(open_evaluator(chosen))
        assert patch.model_dump(exclude=volatile) == norm_patch.model_dump(exclude=volatile)
        assert len(sets) == (0 if kept else norm_patch.probes - max([0, *answered]))
        assert sorted(path.name for path in folder.iterdir()) == [patch.key, f"{patch.key}.lock"]
        shutil.rmtree(cache)
    assert died > 50


# --- What is kept of the probes -------------------------------------------------------------------


def test_a_course_counts_void_probes_and_publishes_the_rest(world: Path) -> None:
    """Probe once with an outcome and once without."""
    evaluator = Scripted(world, [COMPLIED] * 6, [COMPLIED] * 6)
    course = Course(Oracle(evaluator), "world/plain")  # type: ignore[arg-type]
    budgets = Budgets(target=3, over_refusal_limit=0, task_floor=0)
    moments: list[Progress] = []
    subscribe(moments.append)
    try:
        evaluator.harmful = [*[REFUSED] * 4, COMPLIED, COMPLIED]
        assert course.probe(evaluator.units, budgets).accepted
        evaluator.harmful = [REFUSED, *[UNSCORED] * 5]
        with pytest.raises(VoidProbe):
            course.probe(evaluator.units, budgets)
    finally:
        unsubscribe(moments.append)
    assert (course.begun, [probe.refused for probe in course.probes]) == (2, [4])
    (moment,) = moments
    assert (moment.student, moment.phase) == ("world/plain", "searching a start")
    assert (moment.probes, moment.refused, moment.asked) == (1, 4, 6)
