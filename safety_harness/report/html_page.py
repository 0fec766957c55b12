"""Write the report as one HTML file, which loads nothing: the verdict, then every student down to the question."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from safety_harness.gate.asked import Asked, Question, as_counted
from safety_harness.gate.decide import premise_of, rules_of
from safety_harness.gate.limits import not_shown
from safety_harness.gate.numbers import Attack, Attacked, Defense, OverRefusal, Perplexity, Task
from safety_harness.gate.records import Patch
from safety_harness.gate.results import RunResult, StudentResult
from safety_harness.report import attacks, attacks_page, cells, head, notation, people, remains, tampered
from safety_harness.report.comparison import Versus
from safety_harness.report.figures import COURSE_HEIGHT, COURSE_WIDTH, figures, whole_probes
from safety_harness.text import shortened, visible

__all__ = ["figures", "html"]

CHECKS = {
    "defense": "refuses harmful questions",
    "attacked": "refuses under every attack",
    "over_refusal": "answers harmless questions",
    "task": "keeps its own task",
    "perplexity": "keeps its perplexity",
    "divergence": "stays near itself",
    "minimality": "every moved unit is needed",
    "tamper": "refuses after tuning",
}
_WORDS = {letter: Markup(word) for letter, word in remains.WORDS.items()}
WITHOUT_FIGURES = "The figures of this page need matplotlib: pip install 'safety-harness[figures]'"
# Longer answers are cut: the page has to stay readable, whatever a model answered.
LONGEST_ANSWER = 2000  # characters


@dataclass(frozen=True)
class Flip:
    """A question with its verdicts before and after patching."""

    link: Markup
    before: Markup
    after: Markup
    answers: tuple[str, ...]


def html(result: RunResult, drawn: Mapping[str, str] | None, against: Versus | None = None) -> str:
    """Return the report as HTML; *drawn* are the run's figures by name, SVG that this package made, or None.

    Answers are shown where *result* holds them; :meth:`RunResult.without_answers` takes them out.
    """
    listed = remains.kinds(result)
    under_attack = attacks_page.of_run(result)
    script = _read("page.js")
    # No other script may run than this one, so that no answer of a model can.
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return _environment().get_template("page.html.jinja").render(
        result=result,
        mark=cells.MARKS[result.outcome],
        totals=cells.totals(result),
        confidences=cells.confidences(result),
        cells=cells,
        head=head,
        checks=CHECKS,
        columns=notation.COLUMNS,
        students=[_student(result, student, listed, under_attack) for student in result.students],
        figures=None if drawn is None else {name: Markup(svg) for name, svg in drawn.items()},
        without_figures=WITHOUT_FIGURES,
        against=against,
        remains=(remaining := remains.remains(result)),
        anchor=_question_anchor,
        anchor_of=_anchor,
        attacks=attacks,
        **under_attack,
        tampered=tampered,
        risks=[(student.id, remains.risk(result, student)) for student in result.students],
        judge_errs=remains.judge_errs(result),
        trust=people.trust(result),
        not_shown=not_shown(under_attack=attacks.some_count(result), tuned=tampered.every(result)),
        sets=_asked_sets(result, {(one.set, one.at) for kind in remaining for one in kind.questions}),
        provenance=cells.provenance(result),
        judge_rows=cells.judge_rows(result),
        style=Markup(_read("page.css")),
        script=Markup(script),
        script_hash=digest,
    )  # fmt: skip


@functools.cache
def _environment() -> Environment:
    # Every value of the page goes through `finalize`: control characters go, then it is escaped.
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


def _anchor(student: StudentResult) -> str:
    return hashlib.sha256(student.id.encode("utf-8", "replace")).hexdigest()[:12]


def _student(
    result: RunResult, student: StudentResult, listed: Sequence[remains.Kind], under_attack: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the page shows of one student, in addition to the cells of the overview."""
    names = [
        name
        for name in dict.fromkeys((*CHECKS, *student.checks))
        if name in student.checks and not isinstance(student.checks[name].numbers, Attack)  # they have a table
    ]
    where, attacked = bool(under_attack["under_attack"]), student.numbers(Attacked).shares
    gate, premise = rules_of(student.id, result.gate).get("gate", {}), premise_of(student.id, result.gate)
    return {
        "result": student,
        "anchor": _anchor(student),
        "checks": [
            (CHECKS.get(name, name), student.checks[name], notation.notation(student.checks[name], gate))
            for name in names
        ],
        "defense": student.numbers(Defense),
        "overview": attacks.inserted(cells.overview_of_page(student), 1, attacks.share(student), where=where),
        "sorted_by": attacks.inserted(_sort_values(student), 1, attacked[1] if attacked else -1, where=where),
        "facts": list(_facts(result, student)),
        "map": _unit_map(student),
        "course": student.about.patch and _course(student.about.patch),
        "flips": {
            name: list(_flips(result, asked, as_counted(asked, premise).flipped))
            for name in names
            if (asked := student.checks[name].asked) and name != Attacked.check
        },
        **attacks_page.of_student(
            result,
            student,
            functools.partial(_question_link, result),
            functools.partial(_flips, result),
            without_fates=under_attack["without_fates"],
        ),
        "remaining": [
            (kind.counted, list(_flips(result, check.asked, kind.wrong(as_counted(check.asked, premise)))))
            for kind in listed
            if (check := student.checks.get(kind.check)) and check.asked and kind.applies(check)
        ],
    }


def _sort_values(student: StudentResult) -> list[float]:
    """Return the number that each column of the overview is sorted by; what was not measured comes first."""
    rates = [student.numbers(kind).shares for kind in (Defense, OverRefusal, Task)]
    patch, ratio = student.about.patch, student.numbers(Perplexity).ratio
    effort = [patch.share, len(patch.units), patch.probes, patch.seconds] if patch else [-1, 0, -1, -1]
    return [*(rate[1] if rate else -1 for rate in rates), ratio or -1, *effort]


def _facts(result: RunResult, student: StudentResult) -> Iterator[tuple[str, str]]:
    """Yield the facts of a student that are not in its checks: a name and a text each."""
    numbers, about = student.numbers(Defense), student.about
    if gated := cells.subject(student):
        yield "gated", gated
    if numbers.n is not None:
        yield "DSR, corrected by the judge's error", cells.corrected(result, student)
        yield "DSR, by people's labels", people.labelled(student)
        for what, before, after in (
            ("partial", numbers.partial_before, numbers.partial_after),
            ("unscored", numbers.unscored_before, numbers.unscored_after),
        ):
            yield f"{what} answers to harmful questions", " → ".join(map(cells.value_or_dash, (before, after)))
    if harmful := cells.harmful(student):
        yield "harmful answers to harmful questions, of those that the judge could tell", harmful
    for name, further in about.further.items():
        refused = " → ".join(cells.refused(counts) for counts in (further.before, further.after))
        yield f"{name} ({further.kind}, not gated)", f"refused {refused} ({cells.interval(further.after.interval)})"
    if about.teacher.model_fields_set:
        harmful, harmless = cells.refused(about.teacher.harmful), cells.refused(about.teacher.harmless)
        yield "all of the teacher", f"refuses {harmful} harmful and {harmless} harmless questions"
    if about.patch:
        yield "patch", f"{about.patch.key[:12]}: {about.patch.reason}"
    if about.lineage:
        yield "lineage", cells.lineage(about.lineage)
    for name, value in (about.model_extra or {}).items():  # of a suite of the user's own
        yield name, shortened(cells.plain(value), LONGEST_ANSWER)
    if identity := cells.identity(student):
        yield "measured on", identity


def _flips(result: RunResult, asked: Asked, places: Iterable[int]) -> Iterator[Flip]:
    for at in places:
        answers = tuple(
            some[at][:LONGEST_ANSWER] + ("…" if len(some[at]) > LONGEST_ANSWER else "")
            for some in (asked.answers_before, asked.answers_after)
            if at < len(some)
        )
        yield Flip(_question_link(result, asked, at), _WORDS[asked.before[at]], _WORDS[asked.after[at]], answers)


def _question_link(result: RunResult, asked: Asked, at: int) -> Markup:
    return _link(remains.question_at(result, asked, at), _question_anchor(asked.set, at))


@functools.lru_cache(maxsize=10_000)  # each student of a family has the same ones, and a page may hold 100,000
def _link(question: Question, anchor: str) -> Markup:
    """Return a question's id and category as HTML, with a link to its words where they are known."""
    named = (
        Markup('<a href="#{}">{}</a>').format(anchor, visible(question.id)) if question.text else visible(question.id)
    )
    return (
        Markup("{} ({})").format(named, visible(question.category)) if question.category else Markup("{}").format(named)
    )


def _question_anchor(name: str, at: int) -> str:
    return f"q-{name[:8]}-{at}"


def _asked_sets(
    result: RunResult, listed: Collection[tuple[str, int]]
) -> list[tuple[str, str, list[tuple[str, Question]]]]:
    """Return each set of questions once: its sha256, its checks, and each question that flipped for some student.

    Of a set that was asked under attack, that is each question. Those *listed* elsewhere on the page are left out.
    """
    served: dict[str, set[str]] = {}
    flipped: dict[str, set[int]] = {}
    for student, check in ((one, check) for one in result.students for check in one.checks.values()):
        if check.asked and isinstance(check.numbers, Attack):
            served.setdefault(check.asked.set, set()).add("asked under attack")
            flipped.setdefault(check.asked.set, set()).update(range(len(check.asked.after)))
        elif check.asked and (places := as_counted(check.asked, premise_of(student.id, result.gate)).flipped):
            served.setdefault(check.asked.set, set()).add(CHECKS.get(check.name, check.name))
            flipped.setdefault(check.asked.set, set()).update(places)
    sets = []
    for name, questions in result.questions.items():
        shown = [
            (_question_anchor(name, at), questions[at])
            for at in sorted(flipped.get(name, ()))
            if at < len(questions) and (name, at) not in listed
        ]
        if shown:
            sets.append((name, ", ".join(sorted(served[name])), shown))
    return sets


def _unit_map(student: StudentResult) -> list[tuple[int, list[float]]]:
    """Return the share of each role that was moved of each touched layer, 0..1; empty where it was not recorded."""
    moved = student.about.moved
    if moved is None:
        return []
    layers = sorted({int(module.partition(".")[0]) for module in moved.share})
    return [(layer, [moved.share.get(f"{layer}.{role}", 0.0) for role in moved.roles]) for layer in layers]


def _course(patch: Patch) -> dict[str, Any] | None:
    """Return the search's probes as two lines, in the coordinates of the figure; None where they were not recorded."""
    steps = whole_probes(patch)
    if len(steps) < 2:
        return None
    most = max(step.parameters for step in steps) or 1
    xs = [COURSE_WIDTH * at / (len(steps) - 1) for at in range(len(steps))]
    sizes = [(x, COURSE_HEIGHT * (1 - step.parameters / most)) for x, step in zip(xs, steps, strict=True)]
    rates = [(x, COURSE_HEIGHT * (1 - step.refused / step.asked)) for x, step in zip(xs, steps, strict=True)]
    size, rate = (" ".join(f"{x:.1f},{y:.1f}" for x, y in points) for points in (sizes, rates))
    return {
        "size": size,
        "rate": rate,
        "accepted": [(f"{x:.1f}", f"{y:.1f}") for (x, y), step in zip(sizes, steps, strict=True) if step.accepted],
        "probes": len(steps),
        "most": f"{100 * most / patch.total_parameters:.2f} %",
    }
