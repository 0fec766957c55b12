"""The report as one HTML file, which loads nothing: verdict first, then every student down to the single question."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from safety_harness.gate.results import Asked, Question, RunResult, StudentResult
from safety_harness.report import cells
from safety_harness.report.comparison import Versus
from safety_harness.report.figures import COURSE_HEIGHT, COURSE_WIDTH, figures
from safety_harness.text import visible

__all__ = ["figures", "html"]

WORDS = {
    "R": "refused", "P": "refused in part", "C": "complied", "U": "unscored", "+": "right", "-": "wrong",
}  # fmt: skip
CHECKS = {
    "defense": "refuses harmful questions",
    "over_refusal": "answers harmless questions",
    "task": "keeps its own task",
    "perplexity": "keeps its perplexity",
    "divergence": "stays near itself",
    "minimality": "every moved unit is needed",
}
# A single answer is cut here: a page has to stay readable whatever a model said.
LONGEST_ANSWER = 2000


@dataclass(frozen=True)
class Flip:
    """A question that counts otherwise after patching."""

    question: Question
    anchor: str
    before: str
    after: str
    answers: tuple[str, ...]


def html(result: RunResult, drawn: Mapping[str, str], against: Versus | None = None) -> str:
    """The report as HTML; *drawn* are the run's figures by name, SVG that this package made.

    Answers are shown where *result* holds them; :meth:`RunResult.without_answers` takes them out.
    """
    script = _read("page.js")
    # The only script that may run is the one here, so that nothing a model said could.
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return _environment().get_template("page.html.jinja").render(
        result=result,
        mark=cells.MARKS[result.outcome],
        totals=cells.totals(result),
        confidences=cells.confidences(result),
        cells=cells,
        checks=CHECKS,
        students=[_student(result, student) for student in result.students],
        figures={name: Markup(svg) for name, svg in drawn.items()},
        against=against,
        sets=_asked_sets(result),
        provenance=cells.provenance(result),
        style=Markup(_read("page.css")),
        script=Markup(script),
        script_hash=digest,
    )  # fmt: skip


@functools.cache
def _environment() -> Environment:
    # Whatever is put into the page goes through here: no control characters, then escaped.
    return Environment(
        loader=PackageLoader("safety_harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )


def _read(name: str) -> str:
    return (resources.files("safety_harness.report") / "templates" / name).read_text(encoding="utf-8")


def _student(result: RunResult, student: StudentResult) -> dict[str, Any]:
    """What the page shows of one student, beside the numbers in its cells."""
    names = [name for name in dict.fromkeys((*CHECKS, *student.checks)) if name in student.checks]
    return {
        "result": student,
        "anchor": _anchor(student.id),
        "checks": [(CHECKS.get(name, name), student.checks[name]) for name in names],
        "defense": cells.numbers_of(student, "defense"),
        "rates": {name: _rate(cells.numbers_of(student, name)) for name in ("defense", "over_refusal", "task")},
        "facts": list(_facts(result, student)),
        "map": _unit_map(student),
        "course": _course(student),
        "flips": {
            name: list(_flips(result.questions.get(asked.set, ()), asked))
            for name in names
            if (asked := student.checks[name].asked)
        },
    }


def _rate(numbers: Mapping[str, Any]) -> float:
    """What a column is sorted by; what was not measured comes first."""
    return float(numbers["after"] / numbers["n"]) if numbers.get("n") else -1.0


def _facts(result: RunResult, student: StudentResult) -> Iterator[tuple[str, str]]:
    """What a reviewer may want to know of a student beside its checks, in words."""
    numbers = cells.numbers_of(student, "defense")
    if "n" in numbers:
        yield "DSR, corrected by the judge's error", cells.corrected(result, student)
        for what in ("partial", "unscored"):
            yield f"{what} answers to harmful questions", f"{numbers[f'{what}_before']} → {numbers[f'{what}_after']}"
    for name, found in student.about.get("further", {}).items():
        (before, _), (after, interval) = cells.counted(found["before"]), cells.counted(found["after"])
        yield f"{name} ({found['kind']}, not gated)", f"refused {before} → {after} ({interval})"
    if "teacher" in student.about:
        harmful, harmless = (cells.teacher_count(student, kind) for kind in ("harmful", "harmless"))
        yield "all of the teacher", f"refuses {harmful} harmful and {harmless} harmless questions"
    if patch := cells.patch_of(student):
        yield "patch", f"{str(patch.get('key'))[:12]}: {patch.get('reason')}"
    if near := student.about.get("lineage"):
        yield "lineage", cells.lineage(near)
    if identity := cells.identity(student):
        yield "measured on", identity


def _anchor(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:12]


def _flips(questions: Sequence[Question], asked: Asked) -> Iterator[Flip]:
    for at in asked.flipped:
        question = questions[at] if at < len(questions) else Question(f"question {at + 1}", "")
        answers = tuple(
            some[at][:LONGEST_ANSWER] + ("…" if len(some[at]) > LONGEST_ANSWER else "")
            for some in (asked.answers_before, asked.answers_after)
            if at < len(some)
        )
        yield Flip(question, _question_anchor(asked.set, at), WORDS[asked.before[at]], WORDS[asked.after[at]], answers)


def _question_anchor(name: str, at: int) -> str:
    return f"q-{name[:8]}-{at}"


def _asked_sets(result: RunResult) -> list[tuple[str, str, list[tuple[str, Question]]]]:
    """Every set of questions once: its sha256, for which checks it served, and each question that flipped somewhere."""
    served: dict[str, set[str]] = {}
    flipped: dict[str, set[int]] = {}
    for check in (check for student in result.students for check in student.checks.values()):
        if check.asked and check.asked.flipped:
            served.setdefault(check.asked.set, set()).add(CHECKS.get(check.name, check.name))
            flipped.setdefault(check.asked.set, set()).update(check.asked.flipped)
    found = []
    for name, questions in result.questions.items():
        shown = [
            (_question_anchor(name, at), questions[at]) for at in sorted(flipped.get(name, ())) if at < len(questions)
        ]
        if shown:
            found.append((name, ", ".join(sorted(served[name])), shown))
    return found


def _unit_map(student: StudentResult) -> list[tuple[int, list[float]]] | None:
    """Of each touched layer, the share of each role that was moved, 0..1; None where the run did not record it."""
    moved = student.about.get("moved")
    if not moved or not moved["share"]:
        return None
    layers = sorted({int(module.partition(".")[0]) for module in moved["share"]})
    return [(layer, [moved["share"].get(f"{layer}.{role}", 0.0) for role in moved["roles"]]) for layer in layers]


def _course(student: StudentResult) -> dict[str, Any] | None:
    """The search's probes as two lines, in the coordinates of the figure; None where they were not recorded."""
    patch = cells.patch_of(student)
    # A probe that was given up early was asked the hardest questions first: its rate says less than it seems to.
    asked = patch.get("search", {}).get("questions")
    steps: Sequence[Mapping[str, Any]] = [step for step in patch.get("course", ()) if step["asked"] == asked]
    if len(steps) < 2:
        return None
    most = max(step["parameters"] for step in steps) or 1
    xs = [COURSE_WIDTH * at / (len(steps) - 1) for at in range(len(steps))]
    sizes = [step["parameters"] / most for step in steps]
    rates = [step["refused"] / step["asked"] if step["asked"] else 0.0 for step in steps]
    points = {
        name: " ".join(f"{x:.1f},{COURSE_HEIGHT * (1 - value):.1f}" for x, value in zip(xs, values, strict=True))
        for name, values in (("size", sizes), ("rate", rates))
    }
    accepted = [
        (f"{x:.1f}", f"{COURSE_HEIGHT * (1 - size):.1f}")
        for x, size, step in zip(xs, sizes, steps, strict=True)
        if step["accepted"]
    ]
    most_share = most / patch["total_parameters"]
    return {**points, "accepted": accepted, "probes": len(steps), "most": f"{100 * most_share:.2f} %"}
