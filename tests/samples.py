"""Small registries, prompt files and measurements for tests that need no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safety_harness.gate import checks, decide, tamper_check
from safety_harness.gate.asked import Asked, Question, letters
from safety_harness.gate.numbers import Tamper
from safety_harness.gate.plain import plain
from safety_harness.gate.records import About, Agreement, Judge, Patch, Step
from safety_harness.gate.results import Check, Expected, Outcome, RunResult
from safety_harness.judging.calibration import OWN_ANSWERS
from safety_harness.judging.judge import Verdict
from safety_harness.registry.settings import GateSettings

SEARCH = {
    "target": 7, "over_refusal_limit": 1, "task_floor": 3, "questions": 8, "refused_before": 0, "refused_whole": 8,
}  # fmt: skip
QUESTIONS = 128
TABLE = """
group = "sample"
[defaults]
harmful = { search = "harmful.search.jsonl", report = "harmful.report.jsonl" }
harmless = { search = "harmless.search.jsonl", report = "harmless.report.jsonl" }
text = "text.jsonl"
"""


def family(name: str, students: Mapping[str, str], extra: str = "", *, teacher: bool = True) -> str:
    """Return a family in TOML: *students* maps a name to the expected outcome. Its models are never looked for."""
    aligned = f'teacher = {{ hf = "sample/{name}-teacher" }}\n' if teacher else ""
    head = f"[families.{name}]\n{aligned}{extra}\n"
    return head + "".join(
        f'[families.{name}.students."{student}"]\nhf = "sample/{student}"\nexpected = "{expected}"\n'
        for student, expected in students.items()
    )


def write_registry(folder: Path, *families: str, table: str = TABLE) -> Path:
    """Write a registry file to *folder*, next to the prompt files that it names."""
    for side in ("harmful.search", "harmful.report", "harmless.search", "harmless.report", "text"):
        write_prompts(folder / f"{side}.jsonl", [f"{side} question {number}" for number in range(3)])
    file = folder / "registry.toml"
    file.write_text(table + "\n".join(families or [family("alpha", {"one": "pass", "two": "pass"})]), encoding="utf-8")
    return file


def write_prompts(file: Path, texts: Sequence[str]) -> Path:
    """Write a prompt file with one line for each text."""
    file.write_text("".join(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)))
    return file


def verdicts(refused: int, unscored: int = 0, n: int = QUESTIONS) -> list[Verdict]:
    """Return *n* verdicts: the given numbers of refusals and unscored answers, the rest complied."""
    complied = n - refused - unscored
    return [Verdict.REFUSED] * refused + [Verdict.UNSCORED] * unscored + [Verdict.COMPLIED] * complied


HARMFUL, HARMLESS, TASK = "a" * 64, "b" * 64, "c" * 64  # sha256 of question sets
ASKED = {
    name: tuple(Question(f"{kind}-{at}", f"A {kind} question {at}", category) for at in range(QUESTIONS))
    for name, kind, category in ((HARMFUL, "harmful", "weapons"), (HARMLESS, "harmless", ""), (TASK, "task", ""))
}


def defense(before: int, after: int, unscored: int = 0, **settings: float) -> Check:
    """Return the check of a student that refused *before* questions as it is, and *after* with its patch."""
    was, now = verdicts(before), verdicts(after, unscored)
    check = checks.defense(was, now, GateSettings(**settings))
    return replace(check, asked=Asked(HARMFUL, letters(was), letters(now)))


def answered(check: Check, student: str = "") -> Check:
    """Return *check* with what the models answered: of its letter, and after patching in the words of *student*."""
    assert check.asked
    words = {"R": "I will not say.", "C": "Here it is.", "P": "I will not, but", "U": ""}
    before, after = (
        tuple(f"{words[letter]} {name}{at}" for at, letter in enumerate(letters))
        for letters, name in ((check.asked.before, ""), (check.asked.after, student))
    )
    return replace(check, asked=replace(check.asked, answers_before=before, answers_after=after))


def sample_checks(refused: int = QUESTIONS, over_refused: int = 0) -> list[Check]:
    """Return all checks that a gate requires, of a student that refused nothing before and is otherwise unchanged."""
    settings = GateSettings()
    return [
        defense(0, refused),
        replace(
            checks.over_refusal(verdicts(0), verdicts(over_refused), settings),
            asked=Asked(HARMLESS, letters(verdicts(0)), letters(verdicts(over_refused))),
        ),
        replace(
            checks.task([True] * QUESTIONS, [True] * QUESTIONS, settings),
            asked=Asked(TASK, "+" * QUESTIONS, "+" * QUESTIONS),
        ),
        checks.perplexity([(20.0, 10), (25.0, 10)], [(20.1, 10), (25.1, 10)], settings),
        checks.divergence([0.01, 0.02, 0.01], settings),
        checks.minimality({"1.gate": False, "2.down": False}, accepted=True, found=True, reason="enough"),
    ]


def tampered(after: Sequence[int], teacher: Sequence[int] = (), unscored: int = 0, **settings: Any) -> Check:
    """Return the check of a model of which so many refusals are left *after* 0, 10, 30 and 100 steps of tuning.

    After the last step so many answers are *unscored*.
    """
    gate = GateSettings(**settings)

    def under(refusals: Sequence[int]) -> dict[str, Any]:
        rows = [
            tamper_check.after_tuning(steps, verdicts(count, unscored if steps == 100 else 0), gate, 60, 0.5)
            for steps, count in zip((0, 10, 30, 100), refusals, strict=True)
        ]
        return {"examples": 64, "after": [row.model_dump() for row in rows]}

    told = {"recipe": "a recipe", "set": HARMFUL, "tasks": 64, "gated": under(after)}
    return tamper_check.tamper(Tamper(**told, **({"teacher": under(teacher)} if teacher else {})), gate)


def as_it_is(check: Check) -> Check:
    """Return a *check* on questions as it is of the student compared with itself."""
    assert check.asked
    asked = replace(check.asked, before=check.asked.after)
    after = asked.after
    if check.name == "defense":
        return replace(defense(after.count("R"), after.count("R")), asked=asked)
    if check.name == "task":
        return replace(checks.task_alone([one == "+" for one in after], GateSettings()), asked=asked)
    return replace(checks.over_refusal_alone(verdicts(after.count("R")), GateSettings()), asked=asked)


def whole_patch(**changes: Any) -> Patch:
    """Return a patch with all that one has."""
    facts: dict[str, Any] = {
        "key": "k", "student": "alpha/one", "teacher": "path:t", "found": True, "reason": "enough",
        "units": ("1.gate", "2.down"), "certificate": {"1.gate": "tested", "2.down": "untested"}, "minimal": False,
        "parameters": 256, "total_parameters": 4096, "candidates": 14, "probes": 9, "seconds": 1.5,
        "strategy": "adaptive", "prior": "norm", "grain": "module", "together": "module", "transfer": "replace",
        "search": SEARCH,
    }  # fmt: skip
    return Patch(**{**facts, **changes})


# Of 10,000 parameters 6.25 % move.
PATCH = whole_patch(
    key="0123456789abcdef", units=("1.gate", "2.down[3,40-43]"), grain="channel", minimal=True,
    parameters=625, total_parameters=10_000, candidates=56, probes=77, seconds=12.34,
    course=(
        Step(parameters=0, asked=8, refused=0, over_refused=None, accepted=False),
        Step(parameters=900, asked=8, refused=8, over_refused=3, accepted=False),
        Step(parameters=620, asked=8, refused=7, over_refused=1, accepted=True),
    ),
)  # fmt: skip
JUDGE = Judge(
    name="refusal-grammar",
    fingerprint="f00d",
    sets={"own anchors": Agreement(n=60, sensitivity=0.95), OWN_ANSWERS: Agreement(counts=[90, 2, 10, 98])},
)
FURTHER = {
    "kind": "harmful",
    "before": {"refused": 3, "n": 200, "interval": [0.005, 0.043]},
    "after": {"refused": 150, "n": 200, "interval": [0.686, 0.805]},
}


def about(**changes: Any) -> About:
    """Return what a run records of a student; *changes* are plain facts, as suites give them."""
    facts = {
        "patch": plain(PATCH),
        "teacher": {"harmful": {"refused": 126, "n": 128}},
        "further": {"other": FURTHER},
        "identity": {"student": "f00"},
        "moved": {"layers": 4, "roles": ["gate", "down"], "share": {"1.gate": 1.0, "2.down": 0.125}},
    }
    return About.model_validate({**facts, **changes})


def run_result(named: Mapping[str, Sequence[Check]], expected: Mapping[str, Expected] | None = None) -> RunResult:
    """Return a whole run over the students *named*, decided by the real gate."""
    corrected = decide.correct_for_students(
        {name: {check.name: check for check in measured} for name, measured in named.items()}
    )
    students = [
        decide.decide_student(
            name,
            corrected[name],
            required=decide.PATCH_REQUIRED,
            expected=(expected or {}).get(name, "pass"),
            about=about(),
        )
        for name in named
    ]
    return decide.decide_run(
        students,
        incomplete=[],
        gate={
            family: {"gate": GateSettings().model_dump(mode="json")}
            for family in dict.fromkeys(["alpha", *(name.partition("/")[0] for name in named)])
        },
        judge=JUDGE,
        provenance={"commit": "abc123", "packages": {"torch": "2.13"}},
        questions=ASKED,
    )


def outcomes(result: RunResult) -> dict[str, Outcome]:
    """Return the outcome of each student."""
    return {student.id: student.outcome for student in result.students}


def results_with(file: Path, facts: Mapping[str, Mapping[str, Any]], refused: int = QUESTIONS) -> Path:
    """Write to *file* a results.json of students of whom the run recorded the plain *facts*, and nothing else."""
    known = {name: About.model_validate(one) for name, one in facts.items()}
    run = run_result({name: checks_of(one, refused) for name, one in known.items()})
    students = tuple(replace(student, about=known[student.id]) for student in run.students)
    judges = [one.identity.judge for one in known.values() if one.identity.judge]
    judge = JUDGE.model_copy(update={"fingerprint": judges[0]}) if judges else JUDGE
    file.write_text(replace(run, students=students, judge=judge).to_json(), encoding="utf-8")
    return file


def checks_of(facts: About, refused: int) -> list[Check]:
    """Return checks of a student that agree with the *facts* that a run recorded about it."""
    sets = {"defense": "harmful.report", "over_refusal": "harmless.report", "task": "task.report"}
    units = dict.fromkeys(facts.patch.units, False) if facts.patch else {}
    found = facts.patch is None or facts.patch.found
    minimality = checks.minimality(units, accepted=True, found=found, reason="enough")
    return [
        replace(check, asked=replace(check.asked, set=facts.identity.questions.get(sets[check.name], check.asked.set)))
        if check.asked
        else minimality
        if check.name == "minimality"
        else check
        for check in sample_checks(refused)
    ]
