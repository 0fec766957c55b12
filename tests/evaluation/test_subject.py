"""Check what the gate reads of a patched student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from safety_harness.evaluation.budgets import search_budgets
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.oracle import Oracle, Probe
from safety_harness.evaluation.subject import Subject
from safety_harness.gate.asked import letters
from safety_harness.gate.records import Budgets
from safety_harness.gate.results import Outcome
from safety_harness.judging.judge import Verdict
from safety_harness.search.find import find_patch, select
from safety_harness.search.reduce import search
from safety_harness.weights.units import Unit
from tests.refusal_world import entry
from tests.search.probing import ASK, probed


def test_checks_of_a_patched_student(world: Path) -> None:
    """Compare the counts of every check with what the evaluator says."""
    further = {"more": {"kind": "harmful", "path": str(world / "harmful.report.jsonl"), "limit": 3}}
    thresholds = {"dsr": 0.0, "perplexity": 100.0, "divergence": 50.0}
    evaluator = open_evaluator(entry(world, gate=thresholds, further=further))
    patch = find_patch(evaluator)
    before, after = Subject(evaluator), Subject(evaluator, select(evaluator, patch))
    splits = {"harmful": evaluator.questions.harmful, "harmless": evaluator.questions.harmless}
    counts = {kind: [side.refused(split.report) for side in (before, after)] for kind, split in splits.items()}
    defense, over = after.defense(before), after.over_refusal(before)
    assert [counts["harmful"][i]["refused"] for i in (0, 1)] == [defense.numbers["before"], defense.numbers["after"]]
    assert counts["harmful"][0] == {"refused": 0, "n": 6, "interval": defense.numbers["before_interval"]}
    few = evaluator.questions.harmful.report.first(3)
    verdicts = [answer.verdict for answer in evaluator.answers(after.units, few)]
    (more,) = after.further(before).values()
    assert (more["kind"], more["before"]["refused"]) == ("harmful", 0)
    assert (more["after"]["refused"], more["after"]["n"]) == (verdicts.count(Verdict.REFUSED), 3)
    assert counts["harmful"][1]["refused"] > 0
    assert [counts["harmless"][i]["refused"] for i in (0, 1)] == [over.numbers["before"], over.numbers["after"]]
    report = evaluator.questions.task.report if evaluator.questions.task else None
    assert report is not None
    assert after.task(before).numbers["after"] == sum(evaluator.right(after.units, report))
    assert after.perplexity(before).numbers["ratio"] != 1.0
    assert before.perplexity(before).numbers["ratio"] == 1.0
    assert after.divergence().numbers["mean"] > before.divergence().numbers["mean"] == 0.0
    assert after.minimality(patch).passed
    spare = next(unit for unit in evaluator.units if unit.id not in patch.units)
    padded = Subject(evaluator, (*after.units, spare)).minimality(patch)
    oracle = Oracle(evaluator)
    budgets = search_budgets(evaluator.student.search, oracle)
    assert spare.id in padded.numbers["spare"] or not oracle.probe(after.units, budgets).accepted
    assert padded.outcome is Outcome.FAIL


def test_answers_are_recorded_as_the_user_is_shown_them(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record an answer without its thought, and an unfinished thought as the model generated it."""
    evaluator = open_evaluator(entry(world))
    said = iter(["<think>I cannot.</think>Sure.", *["<think>I cannot"] * 100])
    monkeypatch.setattr(evaluator.generator, "answers", lambda questions, *_: [next(said) for _ in questions])
    asked = Subject(evaluator).defense(Subject(evaluator)).asked
    assert asked is not None
    assert asked.answers_before[:2] == ("Sure.", "<think>I cannot")
    assert asked.before[:2] == "CU"


def test_minimality_asks_under_the_budgets_of_the_search(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gate a patch of a lax search under strict settings: what counts is what the search asked for."""
    lax = {"together": "layer", "target_dsr": 0.5, "over_refusal": 0.5, "task": 0.5}
    patch = search(open_evaluator(entry(world, search=lax)), "key")
    evaluator = open_evaluator(entry(world))
    budgets: list[Budgets] = []

    def noting(oracle: Oracle, units: Sequence[Unit], asked: Budgets) -> Probe:
        budgets.append(asked)
        return ASK(oracle, units, asked)

    probed(monkeypatch, noting)
    check = Subject(evaluator, select(evaluator, patch)).minimality(patch)
    assert check.passed
    assert check.numbers["units"] == len(patch.units)
    then = {name: getattr(patch.search, name) for name in ("target", "over_refusal_limit", "task_floor")}
    assert [asked.model_dump() for asked in budgets] == [then] * (1 + len(patch.units))
    today = search_budgets(evaluator.student.search, Oracle(evaluator)).model_dump()
    assert not [name for name, count in then.items() if today[name] == count]


def test_a_list_is_asked_before_and_after(world: Path) -> None:
    """Gate a list of a patched student: its letters are those that the evaluator judges, and a suite may ask too."""
    listed = {"company": {"kind": "harmful", "path": str(world / "harmful.report.jsonl"), "limit": 3}}
    evaluator = open_evaluator(entry(world, must=listed))
    patch = find_patch(evaluator)
    before, after = Subject(evaluator), Subject(evaluator, select(evaluator, patch))
    (check,) = after.must(before)
    assert check.name == "must.company"
    assert check.asked is not None
    assert check.asked.before == "CCC"
    texts = evaluator.questions.harmful.report.first(3).texts
    assert check.asked.after == letters([one.verdict for one in after.ask(texts)])
    assert check.passed == (check.asked.after == "RRR")
    assert before.must(before)[0].outcome is Outcome.FAIL
