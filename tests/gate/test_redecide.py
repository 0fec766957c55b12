"""Decide a run again by other thresholds: from what it kept, asking nothing, and never greener in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.cli.main import main
from safety_harness.errors import DataError
from safety_harness.gate import checks
from safety_harness.gate.asked import LETTERS
from safety_harness.gate.merge import merge
from safety_harness.gate.numbers import Defense, Perplexity
from safety_harness.gate.reading import read_results
from safety_harness.gate.redecide import redecide
from safety_harness.gate.results import Check, Outcome, RunResult
from safety_harness.gate.thresholds import CHANGED, OUTCOME, SOURCE, changes
from safety_harness.registry.settings import GateSettings
from safety_harness.report import WRITERS, terminal
from safety_harness.report.head import notices
from safety_harness.report.html_page import html
from safety_harness.report.markdown import brief
from tests.samples import defense, run_result, sample_checks

RECORDED = Path(__file__).parents[2] / "reports" / "smollm2.json"


def failed(**settings: float) -> RunResult:
    """Return a run of a student that misses the DSR of 0.8 with 100 of 128, and of one that passes."""
    run = run_result({"a/weak": sample_checks(100), "a/strong": sample_checks(120, 3)})
    assert run.outcome is Outcome.FAIL
    return redecide(run, settings, "results.json") if settings else run


def measured_by(gate: GateSettings) -> RunResult:
    """Return the run of :func:`failed` as if it had been gated by *gate* in the first place."""
    letters = {letter: verdict for verdict, letter in LETTERS.items()}

    def made(check: Check) -> Check:
        if check.name == "perplexity":
            return checks.perplexity([(20.0, 10), (25.0, 10)], [(20.1, 10), (25.1, 10)], gate)
        if check.name == "divergence":
            return checks.divergence([0.01, 0.02, 0.01], gate)
        if (asked := check.asked) is None:
            return check
        if check.name == "task":
            right = ([one == "+" for one in side] for side in (asked.before, asked.after))
            return replace(checks.task(*right, gate), asked=asked)
        before, after = ([letters[one] for one in side] for side in (asked.before, asked.after))
        kind = checks.defense if check.name == "defense" else checks.over_refusal
        return replace(kind(before, after, gate), asked=asked)

    return run_result({one.id: [made(check) for check in one.checks.values()] for one in failed().students})


@pytest.mark.parametrize(
    "changed", [{"dsr": 0.7}, {"dsr": 0.95}, {"over_refusal": 0.02}, {"task": 0.01}, {"perplexity": 1.0},
                {"divergence": 0.01}, {"unscored": 0.5}, {"dsr": 0.6, "task": 0.3}],
)  # fmt: skip
def test_other_thresholds_decide_as_if_gated_by_them(changed: dict[str, float]) -> None:
    """Expect outcome, sentence and numbers of each check as a run by these thresholds has them."""
    again, other = failed(**changed), measured_by(GateSettings(**changed))
    assert again.outcome is other.outcome
    for one, two in zip(again.students, other.students, strict=True):
        assert one.outcome is two.outcome
        assert [(check.outcome, check.sentence, check.numbers) for check in one.checks.values()] == [
            (check.outcome, check.sentence, check.numbers) for check in two.checks.values()
        ]


def test_another_confidence_leaves_what_was_not_kept_unproven() -> None:
    """Expect rates decided again with their intervals, and perplexity and KL INCONCLUSIVE without their old bounds."""
    strong = failed(confidence=0.9).students[1]
    assert strong.outcome is Outcome.INCONCLUSIVE
    unproven = [name for name, check in strong.checks.items() if check.outcome is Outcome.INCONCLUSIVE]
    assert unproven == ["perplexity", "divergence"]
    assert "its bound was kept at the confidence of the run alone" in strong.reasons[0]
    assert strong.numbers(Perplexity).ratio_upper is None
    was = failed().students[1].numbers(Defense).after_interval
    now = strong.numbers(Defense).after_interval
    assert was
    assert now
    assert was[0] < now[0] < now[1] < was[1]
    further = strong.about.further["other"].after.interval
    assert further
    assert further[0] > 0.686


def test_without_letters_nothing_is_decided_again() -> None:
    """Expect INCONCLUSIVE of a file that kept no letters, even where its numbers seem to say pass."""
    run = failed()
    bare = tuple(
        replace(one, checks={name: replace(check, asked=None) for name, check in one.checks.items()})
        for one in run.students
    )
    again = redecide(replace(run, students=bare), {"dsr": 0.5}, "old.json")
    assert again.outcome is Outcome.INCONCLUSIVE
    assert "the letters of its questions were not kept" in again.students[0].reasons[0]


def test_a_suites_own_check_keeps_its_outcome() -> None:
    own = Check("speed", Outcome.FAIL, "too slow", {"tokens": 3})
    again = redecide(run_result({"a/one": [*sample_checks(), own]}), {"dsr": 0.1}, "r.json")
    assert again.students[0].outcome is Outcome.FAIL
    assert again.students[0].checks["speed"] == own


def test_the_correction_over_students_is_made_again() -> None:
    """Expect a gain that is none among eight to be none again, and needed no more once the student refuses enough."""
    run = run_result({f"a/{number}": [defense(105, 112), *sample_checks()[1:]] for number in range(8)})
    assert {one.outcome for one in redecide(run, {"dsr": 0.75}, "r").students} == {Outcome.FAIL}
    assert {one.outcome for one in redecide(run, {"dsr": 0.7}, "r").students} == {Outcome.PASS}


# --- Never greener in silence -----------------------------------------------------------------------------------------


def test_what_was_changed_is_said_in_every_report(tmp_path: Path) -> None:
    again = failed(dsr=0.6)
    assert again.outcome is Outcome.PASS
    said = "Thresholds were changed after the run, and nothing was asked again. a: dsr 0.800 → 0.600."
    assert notices(again)[1].startswith(said)  # the other family of the samples has no student
    assert notices(again)[1].endswith("By its own thresholds the run was FAIL.")
    for text in (
        terminal(again),
        brief(again)[:600],
        html(again, {}).partition("</header>")[0],
        *WRITERS["junit"](again, None).values(),
    ):
        assert said in text
    assert again.provenance[SOURCE].startswith("results.json, sha256 ")
    (tmp_path / "results.json").write_text(again.to_json())
    assert read_results(tmp_path / "results.json") == again


@given(st.lists(st.sampled_from([0.3, 0.6, 0.7, 0.8, 0.95]), min_size=1, max_size=4))
def test_several_changes_are_one(values: list[float]) -> None:
    """Expect of any chain of changes the decision and the notice of the last one against the run's own."""
    run = once = failed()
    for value in values:
        run = redecide(run, {"dsr": value}, "step.json")
    once = redecide(once, {"dsr": values[-1]}, "step.json")
    assert run.students == once.students
    assert run.outcome is once.outcome
    assert (
        changes(run.gate["a"]) == changes(once.gate["a"]) == ({} if values[-1] == 0.8 else {"dsr": (0.8, values[-1])})
    )
    if values[-1] != 0.8:
        assert run.gate["a"][CHANGED][OUTCOME] == "fail"


def test_runs_of_other_thresholds_do_not_merge() -> None:
    with pytest.raises(DataError, match="by other settings"):
        merge({"own": failed(), "changed": failed(dsr=0.6)})


def test_a_change_cannot_be_taken_out_of_the_file(tmp_path: Path) -> None:
    """Expect the digest to hold which thresholds were changed."""
    table = json.loads(failed(dsr=0.6).to_json())
    del table["gate"]["a"][CHANGED]
    (tmp_path / "results.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match="was changed after it was written"):
        read_results(tmp_path / "results.json")


@pytest.mark.parametrize("gate", [{}, {"a": {}}, {"a": {"gate": {"dsr": 7}}}])
def test_a_run_that_names_no_thresholds_is_refused_or_kept(gate: dict[str, Any]) -> None:
    run = replace(failed(), gate=gate)
    if not gate:
        assert redecide(run, {"dsr": 0.1}, "r").students[0].outcome is Outcome.FAIL
    else:
        with pytest.raises(DataError, match="a: by which thresholds it was gated is not said"):
            redecide(run, {"dsr": 0.1}, "r")


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_decides_again_and_keeps_the_original(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Expect the exit code of the new decision, files in another folder, and the run's own untouched."""
    file = tmp_path / "results.json"
    file.write_text(failed().to_json())
    before = file.read_bytes()
    assert main(["report", str(file)]) == 1
    assert main(["report", str(file), "--gate-dsr", "0.6"]) == 0
    assert "Thresholds were changed after the run" in capsys.readouterr().out
    out = tmp_path / "looser"
    assert main(["report", str(file), "--gate-dsr", "0.6", "--to", "json,html,md", "--out", str(out)]) == 0
    assert read_results(out / "results.json").outcome is Outcome.PASS
    assert "Thresholds were changed after the run" in (out / "report.html").read_text()
    assert (file.read_bytes(), [path.name for path in tmp_path.glob("*.*")]) == (before, ["results.json"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gate-dsr", "0.6", "--to", "html"], "name another folder with --out"),
        (["--gate-dsr", "0.6", "--to", "json", "--out", "."], "name another folder with --out"),
        (["--to", "json"], "results.json stands as it is"),
        (["--gate-dsr", "much"], "--gate-dsr: "),
        (["--gate-confidence", "1"], "--gate-confidence: "),
    ],
)
def test_the_command_never_writes_over_a_run(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("results.json").write_text(failed().to_json())
    assert main(["report", "results.json", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_the_recorded_run_can_be_decided_again() -> None:
    """Expect the one student that failed by its task to pass it with a wider margin, and two surprises to stay red."""
    again = redecide(read_results(RECORDED), {"task": 0.17}, RECORDED.name)
    assert {one.id for one in again.students if one.surprises} == {"smollm2/persona", "smollm2/identity"}
    assert again.outcome is Outcome.FAIL
