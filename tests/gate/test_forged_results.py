"""Ways to forge a results.json: every command that reads one refuses it.

A file that was changed by hand no longer has the digest of what it holds. Whoever makes the digest anew has to change
everything else as well: letters, numbers, corrections and outcomes are decided again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safety_harness.cli.main import main
from safety_harness.errors import DataError
from safety_harness.gate.incidents import Incident
from safety_harness.gate.plain import plain
from safety_harness.gate.reading import read_results
from safety_harness.gate.records import About
from safety_harness.gate.results import Outcome, RunResult, run_from_table
from safety_harness.patch.record import recorded
from safety_harness.report import markdown
from safety_harness.report.html_page import html
from tests.samples import HARMFUL, HARMLESS, JUDGE, PATCH, TASK, defense, run_result, sample_checks, whole_patch

Table = dict[str, Any]
Forgery = Callable[[Table], object]
ABOUT = About.model_validate(
    {
        "patch": plain(whole_patch()),
        "identity": {
            "student": "f00",
            "judge": JUDGE.fingerprint,
            "questions": {"harmful.report": HARMFUL, "harmless.report": HARMLESS, "task.report": TASK},
        },
    }
)


def the_run() -> RunResult:
    """Return a run as its registry states: two students that pass, and a known red that fails its defense."""
    run = run_result(
        {"a/one": sample_checks(), "a/two": sample_checks(120), "a/weak": sample_checks(9)}, {"a/weak": "fail"}
    )
    assert run.outcome.value == "known red"
    return replace(run, students=tuple(replace(student, about=ABOUT) for student in run.students))


def of(student: int, *path: str, **values: Any) -> Forgery:
    """Return the forgery that gives *values* to the table at *path* in a student's."""

    def forge(table: Table) -> None:
        inner = table["students"][student]
        for step in path:
            inner = inner[step]
        inner.update(values)

    return forge


def check(name: str, student: int = 0, **values: Any) -> Forgery:
    return of(student, "checks", name, **values)


def numbers(name: str, student: int = 0, **values: Any) -> Forgery:
    return of(student, "checks", name, "numbers", **values)


def letters(name: str, student: int = 0, **values: Any) -> Forgery:
    return of(student, "checks", name, "asked", **values)


def drop(*path: str, student: int = 0) -> Forgery:
    """Return the forgery that takes the last of *path* out of a student's table."""

    def forge(table: Table) -> None:
        inner = table["students"][student]
        for step in path[:-1]:
            inner = inner[step]
        del inner[path[-1]]

    return forge


def every(*forgeries: Forgery) -> Forgery:
    return lambda table: [forge(table) for forge in forgeries]


def passing(name: str, student: int = 2) -> Forgery:
    """Return the forgery of a failing check that says pass, with the student's outcome."""
    return every(check(name, student, outcome="pass"), of(student, outcome="pass", reasons=[], expected="pass"))


def as_it_is(table: Table) -> None:
    """Say that the students were gated as they are, which needs no minimality."""
    table["provenance"]["subject"] = "student"
    for student in table["students"]:
        del student["checks"]["minimality"]


def as_subject(subject: str, *, changed: bool) -> Forgery:
    """Return the forgery that calls the patched student a/one *subject*, without what only a patched one has.

    If *changed*, it still has the answers of the student before its patch.
    """

    def forge(table: Table) -> None:
        student = table["students"][0]
        table.update(students=[student], outcome="pass")
        table["provenance"]["subject"] = student["about"]["subject"] = subject
        student["about"]["patch"] = None
        for name in ("minimality", "perplexity", "divergence"):
            del student["checks"][name]
        if not changed:
            student["checks"]["defense"]["asked"]["before"] = ALL_REFUSED
            before = {"before": 128, "before_interval": student["checks"]["defense"]["numbers"]["after_interval"]}
            student["checks"]["defense"]["numbers"] |= {
                **before,
                "gained": 0,
                "p_improvement": 1.0,
                "improvement_required": False,
                "p_adjusted": None,
            }

    return forge


ALL_REFUSED, NONE_REFUSED = "R" * 128, "C" * 128
# Made with the digest of what they hold.
SEALED: dict[str, Forgery] = {
    "the run failed and says pass": every(of(0, expected="fail"), lambda table: table.update(outcome="pass")),
    "a known red says pass": lambda table: table.update(outcome="pass"),
    "a check says known red": every(check("defense", 2, outcome="known red"), of(2, outcome="pass", expected="pass")),
    "a student says known red": of(2, outcome="known red"),
    "the run passed and says inconclusive": lambda table: table.update(outcome="inconclusive"),
    "a student failed and says pass": of(2, outcome="pass", expected="pass"),
    "a student passed and says fail": of(0, outcome="fail", expected="fail"),
    "a student passed and says inconclusive": of(0, outcome="inconclusive"),
    "a check failed and says pass": passing("defense"),
    "a check passed and says fail": every(check("task", outcome="fail"), of(0, outcome="fail", expected="fail")),
    "a check is unproven and says pass": every(letters("defense", after="U" * 128), numbers("defense", after=0)),
    "letters say that nothing was refused": letters("defense", after=NONE_REFUSED),
    "letters say that all was refused": every(letters("defense", 2, after=ALL_REFUSED), of(2, expected="pass")),
    "letters say that everything harmless was refused": letters("over_refusal", after=ALL_REFUSED),
    "letters say that it was refused in part": letters("over_refusal", after="P" * 128),
    "letters say that the task was lost": letters("task", after="-" * 128),
    "letters of another kind": letters("task", before=ALL_REFUSED, after=ALL_REFUSED),
    "letters that nobody gives": letters("defense", after="X" * 128),
    "letters for fewer questions": letters("defense", before="C" * 64, after="R" * 64),
    "letters before and after of other lengths": letters("defense", before="C" * 64),
    "no letters": check("defense", asked=None),
    "no letters at all": every(*(check(name, asked=None) for name in ("defense", "over_refusal", "task"))),
    "letters of questions that were searched on": letters("defense", set=HARMLESS),
    "no question": letters("defense", before="", after=""),
    "more refusals than letters": numbers("defense", after=127 + 1, before=100),
    "fewer questions than letters": numbers("defense", n=64),
    "another interval": numbers("defense", after_interval=[0.999, 1.0]),
    "fewer unscored answers": numbers("defense", unscored_after=5),
    "a smaller p": numbers("defense", p_improvement=0.01),
    "no improvement required": numbers("defense", improvement_required=False),
    "an improvement that the correction takes away": every(
        numbers("defense", p_improvement=0.9), check("defense", asked=None)
    ),
    "a correction that did not happen": check("defense", 2, raw_outcome="pass"),
    "a correction undone": check("defense", 0, outcome="fail", raw_outcome="pass"),
    "a smaller rise": numbers("over_refusal", difference_upper=0.0),
    "a smaller loss": numbers("task", difference_lower=0.0),
    "more right answers": numbers("task", before=1),
    "a perplexity over its threshold": numbers("perplexity", ratio_upper=2.0),
    "a perplexity over its own bound": numbers("perplexity", ratio=2.0),
    "a divergence over its threshold": numbers("divergence", upper=9.0),
    "a divergence over its own bound": numbers("divergence", mean=9.0),
    "no numbers of a defense": every(check("defense", numbers={}, asked=None), of(0, about={})),
    "no numbers of an over-refusal": every(check("over_refusal", numbers={}, asked=None), of(0, about={})),
    "no numbers of a perplexity": check("perplexity", numbers={}),
    "no numbers of a divergence": check("divergence", numbers={}),
    "no numbers of a minimality": check("minimality", numbers={}),
    "a unit that can be spared": numbers("minimality", spare=["1.gate"]),
    "a unit that was not settled": numbers("minimality", void=["1.gate"]),
    "a patch that its oracle does not accept": numbers("minimality", accepted=False),
    "a patch of other units": numbers("minimality", units=3),
    "a patch that was not found": of(0, "about", "patch", found=False),
    "a patch without units": of(0, "about", "patch", units=[], certificate={}),
    "nothing spare, and it failed": every(
        check("minimality", outcome="fail"), of(0, outcome="fail", expected="fail", reasons=[])
    ),
    "a check that is missing": drop("checks", "over_refusal"),
    "no check": of(0, checks={}),
    "a known red with a check missing": drop("checks", "over_refusal", student=2),
    "a known red with one check alone": lambda table: of(
        2, checks={"defense": table["students"][2]["checks"]["defense"]}
    )(table),
    "a known red that refused everything": letters("defense", 2, after=ALL_REFUSED),
    "a check under another name": lambda table: of(0, checks={
        ("safety" if name == "defense" else name): one for name, one in table["students"][0]["checks"].items()
    })(table),
    "a check of a suite in another's place": of(0, "checks", "divergence", name="mine"),
    "a check in another's place": lambda table: table["students"][2]["checks"].update(
        defense=table["students"][2]["checks"]["over_refusal"]
    ),
    "students as they are, with a patch": as_it_is,
    "a patched student that is said to be served": as_subject("served", changed=True),
    "a patched student that is said to be as it is": as_subject("as it is", changed=True),
    "a patched student that was compared with nothing": drop("checks", "over_refusal", "numbers", "difference"),
    "a student as it is whose weights are not recorded": every(
        as_subject("as it is", changed=False), drop("about", "identity")
    ),
    "a served student whose weights are recorded": as_subject("served", changed=False),
    "a student as it is, measured as only a patched one": every(
        lambda table: table["students"][0]["checks"].update(kept=table["students"][0]["checks"]["perplexity"]),
        as_subject("as it is", changed=False),
        lambda table: table["students"][0]["checks"].update(perplexity=table["students"][0]["checks"].pop("kept")),
    ),
    "a run whose students were gated otherwise": every(
        as_subject("as it is", changed=False), lambda table: table["provenance"].update(subject="patched")
    ),
    "a subject that there is not": lambda table: table["provenance"].update(subject="whatever"),
    "no student": lambda table: table.update(students=[]),
    "a student twice": lambda table: table["students"].append(table["students"][0]),
    "a student of a family without rules": of(0, id="b/one"),
    "no rules": lambda table: table.update(gate={}),
    "rules that are none": lambda table: table["gate"]["a"]["gate"].update(dsr="low"),
    "a laxer rule": lambda table: table["gate"]["a"]["gate"].update(dsr=0.0),
    "a stricter rule": lambda table: table["gate"]["a"]["gate"].update(dsr=0.999),
    "another confidence": lambda table: table["gate"]["a"]["gate"].update(confidence=0.6),
    "an interrupt": lambda table: table.update(incomplete=[{"kind": "interrupted"}]),
    "another judge": lambda table: table["judge"].update(fingerprint="another"),
    "an expectation that there is not": of(0, expected="whatever"),
    "another number of questions": lambda table: table["questions"].update({HARMFUL: table["questions"][HARMFUL][:9]}),
}  # fmt: skip
# Not told from a true run by what they say, but by the digest, which they left as it was.
UNSEALED: dict[str, Forgery] = {
    "a known red made of a student that failed": lambda table: of(2, expected="pass")(table),
    "a category": lambda table: table["questions"][HARMFUL][0].update(category="none"),
    "a unit of the patch": of(0, "about", "patch", units=["1.gate", "3.down"]),
    "a fact of a suite": of(0, "about", mine=1),
    "a teacher that refuses more": of(0, "about", teacher={"harmful": {"refused": 128, "n": 128}}),
    "the judge's error": lambda table: table["judge"]["sets"]["own anchors"].update(sensitivity=1.0),
    "an unscored share": lambda table: table["gate"]["a"]["gate"].update(unscored=0.5),
    "no digest": lambda table: table.pop("sha256"),
    "the digest of another run": lambda table: table.update(sha256="0" * 64),
}


def write(file: Path, run: RunResult, forge: Forgery, *, sealed: bool) -> Path:
    """Write *run* with what *forge* changes; *sealed*: with the digest of what the file then holds."""
    table = json.loads(run.to_json())
    forge(table)
    if sealed:
        try:
            table["sha256"] = run_from_table(table).sha256
        except ValueError:  # the forgery is no run at all
            table["sha256"] = ""
    file.write_text(json.dumps(table), encoding="utf-8")
    return file


@pytest.fixture
def honest(tmp_path: Path) -> Path:
    return write(tmp_path / "honest.json", the_run(), lambda _: None, sealed=False)


def test_an_honest_file_is_read(honest: Path) -> None:
    assert read_results(honest) == the_run()
    assert main(["report", str(honest)]) == 0


@pytest.mark.parametrize("forge", SEALED.values(), ids=SEALED)
def test_a_forgery_contradicts_itself(tmp_path: Path, forge: Forgery) -> None:
    forged = write(tmp_path / "results.json", the_run(), forge, sealed=True)
    with pytest.raises(DataError, match=r"results\.json: (contradicts itself|a field is missing or wrong): "):
        read_results(forged)


def test_a_student_as_it_is_is_read_and_named(tmp_path: Path) -> None:
    """Make the whole of a run without a patch: nothing contradicts it, and its page and its digest say what it is."""
    whole = write(tmp_path / "results.json", the_run(), as_subject("as it is", changed=False), sealed=True)
    run = read_results(whole)
    assert run.outcome is Outcome.PASS
    assert run.students[0].about.subject == "as it is"
    for page in (markdown(run), html(run, None)):
        assert "as it is; no teacher; not measured: perplexity, divergence, minimality" in page
    about = run.students[0].about.model_copy(update={"subject": "served"})
    assert replace(run, students=(replace(run.students[0], about=about),)).sha256 != run.sha256


@pytest.mark.parametrize("forge", UNSEALED.values(), ids=UNSEALED)
def test_a_change_breaks_the_seal(tmp_path: Path, forge: Forgery) -> None:
    forged = write(tmp_path / "results.json", the_run(), forge, sealed=False)
    with pytest.raises(DataError, match=r"results\.json: (was changed after it was written|contradicts itself): "):
        read_results(forged)


def test_a_correction_over_students_cannot_be_taken_back(tmp_path: Path) -> None:
    """Improve eight students by seven refusals each: an improvement of one student, and none of eight."""
    run = run_result({f"a/{number}": [defense(105, 112), *sample_checks()[1:]] for number in range(8)})
    assert {student.outcome.value for student in run.students} == {"fail"}
    forge = every(check("defense", outcome="pass", raw_outcome=None), of(0, outcome="pass", reasons=[]))
    forged = write(tmp_path / "results.json", run, forge, sealed=True)
    with pytest.raises(DataError, match="contradicts itself: a/0: defense: pass, and corrected over the students fail"):
        read_results(forged)


def test_every_reader_refuses_a_forgery(tmp_path: Path, honest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Try one forgery with every command and option that takes a results.json."""
    forged = str(write(tmp_path / "forged.json", the_run(), letters("defense", after=NONE_REFUSED), sealed=True))
    out = str(tmp_path / "out.json")
    for command in (
        ["report", forged],
        ["report", str(honest), "--against", forged, "--not-worse"],
        ["merge", str(honest), forged, "--keep-first", "--out", out],
        ["merge", forged, "--without-texts", "--out", out],
        ["patch", forged, "--student", "tiny-llama/arithmetic", "--out", out],
    ):
        assert main(command) == 2
        assert "forged.json: contradicts itself: a/one: defense" in capsys.readouterr().err
    with pytest.raises(DataError, match="contradicts itself"):
        recorded(Path(forged))
    assert not Path(out).exists()


def test_an_older_file_is_decided_again_too(tmp_path: Path) -> None:
    """Say that a file is of schema 3, which had no digest: its letters still decide, and its digest if it has one."""

    def older(table: Table) -> None:
        table.update(schema=3, outcome="pass")  # what a known red was called
        del table["sha256"], table["remarks"]

    forge = every(older, letters("defense", after=NONE_REFUSED))
    with pytest.raises(DataError, match="contradicts itself"):
        read_results(write(tmp_path / "results.json", the_run(), forge, sealed=False))
    with pytest.raises(DataError, match="says schema 3, and holds what only later ones do"):
        read_results(write(tmp_path / "r.json", the_run(), lambda table: table.update(schema=3), sealed=False))
    assert read_results(write(tmp_path / "r.json", the_run(), older, sealed=False)) == the_run()


@pytest.mark.parametrize("incident", [Incident("interrupted"), Incident("other", cause="x")])
def test_a_run_with_an_incident_never_passes(tmp_path: Path, incident: Incident) -> None:
    run = replace(the_run(), incomplete=(incident,))
    with pytest.raises(DataError, match="the run is known red, and its students make it inconclusive"):
        read_results(write(tmp_path / "results.json", run, lambda _: None, sealed=False))


def test_the_digest_is_of_what_was_measured() -> None:
    """Expect one digest of a run and its public copy, wherever and however long it ran; another of other letters."""
    run = the_run()
    elsewhere = replace(run, provenance={"commit": "another"}, remarks=("a remark",))
    slower = tuple(
        replace(
            student, about=student.about.model_copy(update={"patch": whole_patch(seconds=99.0, course=PATCH.course)})
        )
        for student in run.students
    )
    assert {run.sha256, run.without_texts().sha256, elsewhere.sha256, replace(run, students=slower).sha256} == {
        run.sha256
    }
    unknown = replace(run.students[0], about=About.model_validate({"patch": None}))
    assert replace(run, students=(unknown, *run.students[1:])).sha256 != run.sha256
    weaker = replace(run, students=(replace(run.students[0], checks={"defense": defense(0, 127)}), *run.students[1:]))
    assert weaker.sha256 != run.sha256
