"""Two runs under attack compared: question by question under attacks that count in both and were asked alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from safety_harness.cli.main import main
from safety_harness.gate.numbers import Attack
from safety_harness.gate.results import Check
from safety_harness.report import markdown
from safety_harness.report.comparison import Change, Versus, versus
from tests.report.attacked import attack, attacked_run, five, gate_of, together


def compared(then: Sequence[Check], now: Sequence[Check]) -> Versus:
    """Return the comparison of a student whose attacks were *then* and are *now*."""
    old, new = (attacked_run({"a/one": together(checks)}) for checks in (then, now))
    return versus(new, old, "old.json")


def under_attack(comparison: Versus) -> dict[str, Change]:
    return {change.check: change for change in comparison.changes if change.check.startswith("attack")}


def test_attacks_are_compared_question_by_question() -> None:
    """Expect all attacks together, then each that counts; the wild one was asked of 120 questions."""
    comparison = compared(five(wild=40), five(wild=90))
    changes = under_attack(comparison)
    assert list(changes) == ["attacked", "attack.mild", "attack.wild"]
    counts = {name: (one.n, one.before, one.after, one.better, one.worse) for name, one in changes.items()}
    assert counts == {
        "attacked": (128, 40, 90, 50, 0), "attack.mild": (128, 100, 100, 0, 0), "attack.wild": (120, 40, 90, 50, 0),
    }  # fmt: skip
    assert changes["attacked"].p == pytest.approx(2 * 0.5**50)
    assert comparison.uncompared == ()
    assert comparison.notes == ("a/one: was fail, is pass",)


def test_holm_corrects_each_attack_over_the_students() -> None:
    old, new = (
        attacked_run({name: together([attack("mild", safe)]) for name in ("a/one", "a/two")}) for safe in (90, 96)
    )
    changes = [change for change in versus(new, old, "old").changes if change.check == "attack.mild"]
    assert [change.p_adjusted for change in changes] == [pytest.approx(2 * change.p) for change in changes]


def test_what_counts_in_one_run_alone_is_a_note() -> None:
    """Let one attack count no longer, and a new one count: all together are compared under what is left."""
    then = [attack("mild", 100), attack("wild", 60)]
    now = [attack("mild", 110), attack("wild", 60, sensible_before=0, sensible_after=0), attack("new", 20)]
    comparison = compared(then, now)
    changes = under_attack(comparison)
    assert list(changes) == ["attacked", "attack.mild"]
    assert (changes["attacked"].before, changes["attacked"].after) == (100, 110)
    assert comparison.notes == (
        "a/one: attacks that count now and did not: new",
        "a/one: attacks that do not count, and did: wild",
        "a/one: attacked is compared under mild alone",
    )
    assert comparison.uncompared == (
        "a/one: attack.wild not compared; counted there, and here not, or asked otherwise",
    )


@pytest.mark.parametrize(
    "otherwise",
    [{"sent": "4" * 64}, {"tokens": 64}, {"samples": 2}, {"temperature": 0.5}, {"misfits": 4}, {"seen": True}],
)
def test_what_was_asked_otherwise_under_attack(otherwise: dict[str, object]) -> None:
    comparison = compared([attack("mild", 100)], [attack("mild", 100, **otherwise)])  # type: ignore[arg-type]
    assert under_attack(comparison) == {}
    assert comparison.uncompared[0].startswith("a/one: attacked, attack.mild not compared; counted there")


def test_an_attack_without_a_record_of_what_was_sent() -> None:
    """Expect no comparison where neither run says which conversations it sent."""
    check = attack("mild", 100)
    assert isinstance(check.numbers, Attack)
    bare = replace(check, numbers=check.numbers.model_copy(update={"sent": None}))
    assert under_attack(compared([bare], [bare])) == {}


@pytest.mark.parametrize(("then", "now", "code"), [(120, 100, 1), (120, 118, 0), (100, 120, 0)])
def test_worse_under_attack_can_be_refused(tmp_path: Path, then: int, now: int, code: int) -> None:
    """Expect the exit code of --not-worse; both runs pass their gate."""
    for name, safe in (("old", then), ("new", now)):
        run = attacked_run({"a/one": together([attack("mild", safe)])}, gate_of("mild"))
        (tmp_path / f"{name}.json").write_text(run.to_json())
    files = [str(tmp_path / f"{name}.json") for name in ("new", "old")]
    assert main(["report", files[0], "--against", files[1]]) == 0
    assert main(["report", files[0], "--against", files[1], "--not-worse"]) == code


def test_the_report_shows_what_changed_under_attack() -> None:
    result = attacked_run({"a/one": together(five())})
    text = markdown(result, compared(five(wild=40), five()))
    section = text.split("## Against old.json")[1].split("## What was gated")[0]
    for name, was, now in (("attacked", "40/128", "90/128"), ("attack.wild", "40/120", "90/120")):
        assert re.search(rf"\| a/one +\| {name} +\| {was} +\| {now} +\| 50 +\| 0 ", section)
