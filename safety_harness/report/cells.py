"""The text of one cell of a table: a number of a student, and a dash where it was not measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from safety_harness.gate.decide import PATCH_REQUIRED, UNPATCHED, rules_of
from safety_harness.gate.numbers import Defense, OverRefusal, Perplexity, Rates, Task
from safety_harness.gate.records import Agreement, Interval, Lineage, Refused
from safety_harness.gate.results import Outcome, RunResult, StudentResult
from safety_harness.gate.statistics import CONFIDENCE, CorrectedRate, Rate, corrected_rate
from safety_harness.gate.thresholds import CHANGED
from safety_harness.judging.calibration import OWN_ANSWERS
from safety_harness.report.comparison import Versus
from safety_harness.report.sbom import ENVIRONMENT
from safety_harness.text import counted_noun

_SHA256 = re.compile("[0-9a-f]{64}")
MARKS = {outcome: outcome.value.upper() for outcome in Outcome}
NOTHING = "–"
JUDGE_COLUMNS = ("answers", "n", "sensitivity", "specificity", "accuracy", "kappa")


def totals(result: RunResult) -> list[str]:
    """Return one line each for how many students may ship, the gain in DSR, and how much was moved."""
    if not any(student.checks for student in result.students):
        return ["No student was measured."]
    measured = [(student, rates) for student in result.students if (rates := student.numbers(Defense).shares)]
    gains = [after - before for student, (before, after) in measured if student.about.patch]
    patches = [patch for student, _ in measured if (patch := student.about.patch) and patch.units]
    lines = [shipping(result)]
    if gains:
        lines.append(f"DSR gain: mean {100 * sum(gains) / len(gains):+.1f} points, largest {100 * max(gains):+.1f}.")
    if patches:
        share = f"{100 * fmean(patch.share for patch in patches):.1f} %"
        lines.append(f"Parameters moved: mean {share} over {counted_noun(len(patches), 'patch', 'patches')}.")
    if changed := [patch.changed / patch.total_parameters for patch in patches if patch.changed]:
        lines.append(
            f"Components are counted by their own numbers; a mean {100 * fmean(changed):.0f} % of weights change."
        )
    return lines


def shipping(result: RunResult) -> str:
    """Return how many students may ship, how many may not, and why not."""
    ship = {student.id for student in result.may_ship}
    why = Counter(_why_not(student) for student in result.students if student.id not in ship)
    without = f", {why.total()} may not ({', '.join(f'{n} {reason}' for reason, n in why.items())})" if why else ""
    return f"{counted_noun(len(result.students), 'student')}: {len(ship)} may ship{without}."


def _why_not(student: StudentResult) -> str:
    """Return in two words why a student may not ship."""
    if student.known_red:
        return MARKS[Outcome.KNOWN_RED].lower()
    if student.outcome is Outcome.PASS:
        return "in an incomplete run" if student.as_expected else "stated to fail, and passed"
    return {Outcome.FAIL: "failed"}.get(student.outcome, student.outcome.value)


def value_or_dash(value: object) -> str:
    """Return a value as it is."""
    return NOTHING if value is None else str(value)


def number(value: float | None, spec: str) -> str:
    """Return a number in the format *spec*."""
    return NOTHING if value is None else format(value, spec)


def plain(value: Any) -> str:
    """Return any setting or fact, a fraction to three places."""
    return f"{value:.3f}" if isinstance(value, float) and not value.is_integer() else str(value)


def count(k: int | None, n: int | None) -> str:
    """Return ``k/n`` of a rate."""
    return NOTHING if k is None or n is None else f"{k}/{n}"


def interval(bounds: Interval | None) -> str:
    """Return an interval of rates, lower–upper."""
    return NOTHING if bounds is None else f"{bounds[0]:.3f}–{bounds[1]:.3f}"


def refused(counts: Refused | None) -> str:
    """Return ``k/n`` refused."""
    return NOTHING if counts is None else f"{counts.refused}/{counts.n}"


def refused_with_interval(counts: Refused) -> tuple[str, str]:
    """Return ``k/n`` refused, and the interval of that rate."""
    return refused(counts), interval(counts.interval)


def confidence(result: RunResult, student: StudentResult) -> float:
    """Return the confidence of all intervals of a student, 0..1."""
    rules = rules_of(student.id, result.gate).get("gate", {})
    return float(rules.get("confidence", CONFIDENCE))


def confidences(result: RunResult) -> str:
    """Return the confidence of a run's intervals: ``95 %``, or ``90, 95 %`` where families have their own."""
    distinct = sorted({confidence(result, student) for student in result.students}) or [CONFIDENCE]
    return f"{', '.join(f'{100 * one:g}' for one in distinct)} %"


def corrected(result: RunResult, student: StudentResult) -> str:
    """Return the rate of refusals behind the judged one after patching, and its interval, by the judge's error."""
    rate = corrected_refusals(result, student)
    return NOTHING if rate is None else f"{rate.value:.3f} ({rate.low:.3f}–{rate.high:.3f})"


def corrected_refusals(result: RunResult, student: StudentResult) -> CorrectedRate | None:
    """Return the rate of refusals after patching that lies behind the judged one; None where the error is not known."""
    numbers = student.numbers(Defense)
    counts = result.judge.sets.get(OWN_ANSWERS, Agreement()).counts
    if not numbers.n or numbers.after is None or counts is None:
        return None
    true_positive, false_positive, false_negative, true_negative = counts
    return corrected_rate(
        Rate(numbers.after, numbers.n),
        Rate(true_positive, true_positive + false_negative),
        Rate(true_negative, true_negative + false_positive),
        confidence(result, student),
    )


def percent(numbers: Rates) -> str:
    """Return a rate before→after, in whole per cent."""
    return "→".join(f"{100 * rate:.0f}" for rate in numbers.shares) if numbers.shares else NOTHING


def percent_interval(student: StudentResult) -> str:
    """Return the DSR before→after with the interval after, in whole per cent."""
    numbers = student.numbers(Defense)
    if numbers.after_interval is None:
        return NOTHING
    low, high = numbers.after_interval
    return f"{percent(numbers)} [{100 * low:.0f}–{100 * high:.0f}]"


def arrow(numbers: Rates) -> str:
    """Return the counts before→after of n."""
    return f"{numbers.before}→{numbers.after}/{numbers.n}" if numbers.shares else NOTHING


def overview(student: StudentResult) -> tuple[str, ...]:
    """Return the cells of a student that every table begins with: DSR, costs, and what was moved."""
    return (
        percent_interval(student),
        percent(student.numbers(OverRefusal)),
        percent(student.numbers(Task)),
        number(student.numbers(Perplexity).ratio, ".2f"),
        moved(student),
    )


def overview_of_page(student: StudentResult) -> list[str]:
    """Return the cells of the page's overview: what was moved, and the search, in columns of their own."""
    patch = student.about.patch
    search = [f"{100 * patch.share:.2f}", len(patch.units), patch.probes, f"{patch.seconds:.0f}"] if patch else []
    return [*overview(student)[:-1], *(map(str, search or [NOTHING] * 4))]


def subject(student: StudentResult) -> str:
    """Return what was gated, and of a student without a patch what was not measured; empty where that is not said."""
    about = student.about
    if about.subject in (None, "patched"):
        return about.subject or ""
    server = about.identity.served
    by = f" by {server.host}, model {server.model}" if server else ""
    facts = [f"{about.subject}{by}", *(["no teacher"] if about.identity.student and not about.identity.teacher else [])]
    missing = [name for name in PATCH_REQUIRED if name not in student.checks]
    return "; ".join([*facts, *([f"not measured: {', '.join(missing)}"] if missing else [])])


def moved(student: StudentResult) -> str:
    """Return the units and the share of the parameters in the patch, or why there is none."""
    if student.about.subject in UNPATCHED:
        return str(student.about.subject)
    if (patch := student.about.patch) is None:
        return NOTHING
    return f"{len(patch.units)}u {100 * patch.share:.1f}%" if patch.units else "none"


def effort(student: StudentResult) -> str:
    """Return the probes and the seconds that the search took."""
    patch = student.about.patch
    return NOTHING if patch is None else f"{patch.probes}/{patch.seconds:.0f}"


def verdict(student: StudentResult) -> str:
    """Return the gate's outcome: KNOWN RED for a failure that the registry states."""
    if student.known_red:
        return MARKS[Outcome.KNOWN_RED]
    unexpected = student.outcome is Outcome.PASS and not student.as_expected
    return f"{MARKS[student.outcome]}, unexpected" if unexpected else MARKS[student.outcome]


def tone(student: StudentResult) -> Outcome:
    """Return the outcome in whose colour a student is shown: a pass that was stated to fail is red like a failure."""
    return Outcome.FAIL if student.surprises else student.outcome


def look(outcome: Outcome) -> str:
    """Return the name under which the style of the page has the colour of an outcome."""
    return outcome.value.replace(" ", "-")


def identity(student: StudentResult) -> str:
    """Return the hashes and settings that a student's measurements depend on; empty where none were recorded.

    A driver, and packages of other versions than the run's own, are those of the process that measured it.
    """
    known, worker = student.about.identity, student.about.worker
    server = known.served.model_dump() if known.served else {}
    facts = [f"{name} {plain(value)}" for name, value in server.items()]
    facts += [f"answered by {known.engine}"] if known.engine else []
    facts += [
        f"{name} {_short(str(value))}" for name, value in known.model_dump().items() if not isinstance(value, Mapping)
    ]
    facts += [f"driver {worker.driver}"] if worker.driver else []
    facts += [f"its worker's {name} {version or 'missing'}" for name, version in worker.packages.items()]
    return ", ".join(facts)


def _short(value: str) -> str:
    """Return the beginning of a sha256, and any other value whole."""
    return value[:12] if _SHA256.fullmatch(value) else value


def lineage(near: Lineage) -> str:
    """Return how near student and teacher are, and in what they differ."""
    differs = "; ".join(near.differs) or "nothing else that was looked at"
    return (
        f"cosine of the tensors that may move {plain(near.median)} (median), {plain(near.lowest)} (lowest: "
        f"{near.lowest_tensor}); student and teacher differ in {differs}"
    )


def harmful(student: StudentResult) -> str:
    """Return how many answers to harmful questions the judge calls harmful, before and after; nothing if not asked."""
    asked = student.checks[Defense.check].asked if Defense.check in student.checks else None
    if asked is None or not asked.harmful_after:
        return ""
    sides = [side for side in (asked.harmful_before, asked.harmful_after) if side]
    return " → ".join(f"{side.count('Y')} of {len(side) - side.count('?')}" for side in sides)


def judge_rows(result: RunResult) -> list[tuple[str, ...]]:
    """Return one row for each set of labelled answers: how the judge's verdicts agreed with people's."""
    return [
        (name, *(plain(NOTHING if fact is None else fact) for fact in facts))
        for name, one in result.judge.sets.items()
        for facts in [(one.n, one.sensitivity, one.specificity, one.accuracy, one.kappa)]
    ]


def provenance(result: RunResult) -> list[tuple[str, str]]:
    """Return where a run's numbers come from, and the settings that they were held against."""
    rows = [("sha256 of these results", result.sha256), *(("remark", remark) for remark in result.remarks)]
    for key, value in result.provenance.items():
        if key == ENVIRONMENT and isinstance(value, Mapping):
            rows.append((key, f"{len(value)} packages; safety-harness report --sbom lists them"))
            continue
        facts = {f"{key}: {name}": each for name, each in value.items()} if isinstance(value, Mapping) else {key: value}
        rows += [(name, plain(each)) for name, each in facts.items()]
    for family, settings in result.gate.items():
        rows += [
            (f"{family}: {kind}", ", ".join(f"{name} {plain(value)}" for name, value in rules.items()))
            for kind, rules in settings.items()
            if kind != CHANGED  # stands in the first lines of a report
        ]
    return rows


VERSUS_COLUMNS = ("student", "check", "was", "is", "better", "worse", "p (Holm)")


def versus_rows(against: Versus) -> list[tuple[str, ...]]:
    """Return one row for each check of a student in two runs: what got better and worse, and whether by chance."""
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
