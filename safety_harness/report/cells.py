"""What stands in one cell of a table: a number of a student as text, and a dash where it was not measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safety_harness.gate.results import Outcome, RunResult, StudentResult
from safety_harness.gate.statistics import CONFIDENCE, Rate, corrected_rate
from safety_harness.judging.calibration import OWN_ANSWERS
from safety_harness.report.comparison import Versus

MARKS = {Outcome.PASS: "PASS", Outcome.FAIL: "FAIL", Outcome.INCONCLUSIVE: "INCONCLUSIVE"}
NOTHING = "–"
JUDGE_FACTS = ("n", "sensitivity", "specificity", "accuracy", "kappa")


def totals(result: RunResult) -> list[str]:
    """How many students came out how, the gain in DSR, and how much was moved: a line each."""
    if not any(student.checks for student in result.students):
        return ["No student was measured."]
    measured = [student for student in result.students if numbers_of(student, "defense").get("n")]
    gains = [_gain(student) for student in measured]
    counts = {outcome: sum(s.outcome is outcome for s in result.students) for outcome in Outcome}
    found = [patch for patch in map(patch_of, measured) if patch.get("units")]
    shares = [float(patch["share"]) for patch in found]
    lines = [
        f"{counted_noun(len(result.students), 'student')}: {counts[Outcome.PASS]} pass, {counts[Outcome.FAIL]} fail, "
        f"{counts[Outcome.INCONCLUSIVE]} inconclusive; {sum(s.as_expected for s in result.students)} as expected.",
    ]
    if gains:
        lines.append(f"DSR gain: mean {100 * sum(gains) / len(gains):+.1f} points, largest {100 * max(gains):+.1f}.")
    if shares:
        patches = counted_noun(len(shares), "patch", "patches")
        lines.append(f"Parameters moved: mean {100 * sum(shares) / len(shares):.1f} % over {patches}.")
    return lines


def counted_noun(n: int, one: str, more: str = "") -> str:
    """``1 student``, ``2 students``."""
    return f"{n} {one if n == 1 else more or f'{one}s'}"


def _gain(student: StudentResult) -> float:
    numbers = student.checks["defense"].numbers
    return float(numbers["after"] - numbers["before"]) / float(numbers["n"])


def patch_of(student: StudentResult) -> Mapping[str, Any]:
    """The facts of a student's patch; empty when no patch was looked for."""
    found: Mapping[str, Any] = student.about.get("patch", {})
    return found


def numbers_of(student: StudentResult, check: str) -> Mapping[str, Any]:
    """The numbers of one check; empty when it was not measured."""
    return student.checks[check].numbers if check in student.checks else {}


def value_or_dash(numbers: Mapping[str, Any], name: str) -> Any:
    """A number as it is."""
    return numbers.get(name, NOTHING)


def number(value: Any, spec: str) -> str:
    """A number in the format *spec*."""
    return NOTHING if value is None else format(value, spec)


def plain(value: Any) -> str:
    """Any setting or fact, with fractions to three places."""
    return f"{value:.3f}" if isinstance(value, float) and not value.is_integer() else str(value)


def count(numbers: Mapping[str, Any], name: str) -> str:
    """``k/n`` of a rate."""
    return f"{numbers[name]}/{numbers['n']}" if name in numbers else NOTHING


def interval(numbers: Mapping[str, Any], name: str) -> str:
    """An interval of rates, lower–upper."""
    return f"{numbers[name][0]:.3f}–{numbers[name][1]:.3f}" if name in numbers else NOTHING


def counted(found: Mapping[str, Any]) -> tuple[str, str]:
    """``k/n`` refused, and the interval of its rate."""
    return f"{found['refused']}/{found['n']}", interval(found, "interval")


def confidence(result: RunResult, student: StudentResult) -> float:
    """Of all intervals of a student, 0..1."""
    rules = result.gate.get(student.id.partition("/")[0], {}).get("gate", {})
    return float(rules.get("confidence", CONFIDENCE))


def confidences(result: RunResult) -> str:
    """That of a run's intervals, as a heading has it: ``95 %``, or ``90, 95 %`` where families have their own."""
    found = sorted({confidence(result, student) for student in result.students}) or [CONFIDENCE]
    return f"{', '.join(f'{100 * one:g}' for one in found)} %"


def corrected(result: RunResult, student: StudentResult) -> str:
    """The rate of refusals behind the judged one after patching, and its interval, by the judge's known error."""
    numbers = numbers_of(student, "defense")
    counts = result.judge.get("sets", {}).get(OWN_ANSWERS, {}).get("counts")
    if not numbers.get("n") or "after" not in numbers or not counts:
        return NOTHING
    true_positive, false_positive, false_negative, true_negative = counts
    found = corrected_rate(
        Rate(numbers["after"], numbers["n"]),
        Rate(true_positive, true_positive + false_negative),
        Rate(true_negative, true_negative + false_positive),
        confidence(result, student),
    )
    return NOTHING if found is None else f"{found.value:.3f} ({found.low:.3f}–{found.high:.3f})"


def teacher_count(student: StudentResult, kind: str) -> str:
    """``k/n`` refused with all of the teacher's units in, of harmful or harmless questions."""
    row = student.about.get("teacher", {}).get(kind)
    return f"{row['refused']}/{row['n']}" if row else NOTHING


def percent(student: StudentResult, check: str) -> str:
    """A rate before→after, in whole per cent."""
    numbers = numbers_of(student, check)
    if not numbers.get("n"):
        return NOTHING
    return "→".join(f"{100 * numbers[when] / numbers['n']:.0f}" for when in ("before", "after"))


def percent_interval(student: StudentResult) -> str:
    """DSR before→after with the interval after, in whole per cent."""
    numbers = numbers_of(student, "defense")
    if "after_interval" not in numbers:
        return NOTHING
    low, high = numbers["after_interval"]
    return f"{percent(student, 'defense')} [{100 * low:.0f}–{100 * high:.0f}]"


def arrow(student: StudentResult, check: str) -> str:
    """Counts before→after of n."""
    numbers = numbers_of(student, check)
    return f"{numbers['before']}→{numbers['after']}/{numbers['n']}" if "n" in numbers else NOTHING


def moved(student: StudentResult) -> str:
    """Units and share of the parameters in the patch."""
    about = patch_of(student)
    if "units" not in about:
        return NOTHING
    return f"{len(about['units'])}u {100 * about['share']:.1f}%" if about["units"] else "none"


def effort(student: StudentResult) -> str:
    """Probes and seconds that the search took."""
    about = patch_of(student)
    return f"{about['probes']}/{about['seconds']:.0f}" if "seconds" in about else NOTHING


def seconds(student: StudentResult) -> str:
    """Seconds that the search took."""
    return number(patch_of(student).get("seconds"), ".1f")


def verdict(student: StudentResult) -> str:
    """The gate's outcome, and whether the registry expected it."""
    mark = MARKS[student.outcome]
    if student.expected == "pass" or student.outcome is Outcome.INCONCLUSIVE:
        return mark
    return f"{mark}, expected" if student.as_expected else f"{mark}, unexpected"


def identity(student: StudentResult) -> str:
    """Hashes and settings that a student's measurements depend on; empty where they were not recorded."""
    facts = student.about.get("identity", {})
    return ", ".join(f"{name} {str(value)[:12]}" for name, value in facts.items() if not isinstance(value, Mapping))


def lineage(near: Mapping[str, Any]) -> str:
    """How near student and teacher are, and in what they differ."""
    differs = "; ".join(near["differs"]) or "nothing else that was looked at"
    return (
        f"cosine of the tensors that may move {plain(near['median'])} (median), {plain(near['lowest'])} (lowest: "
        f"{near['lowest_tensor']}); student and teacher differ in {differs}"
    )


def provenance(result: RunResult) -> list[tuple[str, str]]:
    """Where a run's numbers come from, and the settings that they were held against."""
    rows: list[tuple[str, str]] = []
    for key, value in result.provenance.items():
        facts = {f"{key}: {name}": each for name, each in value.items()} if isinstance(value, Mapping) else {key: value}
        rows += [(name, plain(each)) for name, each in facts.items()]
    for family, settings in result.gate.items():
        rows += [
            (f"{family}: {kind}", ", ".join(f"{name} {plain(value)}" for name, value in rules.items()))
            for kind, rules in settings.items()
        ]
    return rows


VERSUS_COLUMNS = ("student", "check", "was", "is", "better", "worse", "p (Holm)")


def versus_rows(against: Versus) -> list[tuple[str, ...]]:
    """A row a check of a student in two runs; questions that got better and worse, and whether chance explains it."""
    return [
        (
            change.student,
            change.check.replace("_", "-"),
            f"{change.before}/{change.n}",
            f"{change.after}/{change.n}",
            str(change.better),
            str(change.worse),
            f"{change.p_adjusted:.1e}" if change.p_adjusted < 0.001 else f"{change.p_adjusted:.3f}",
        )
        for change in against.changes
    ]
