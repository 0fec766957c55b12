"""Say what people labelled of the answers of a run, and how far its judge is to be trusted on answers like these."""

from __future__ import annotations

from safety_harness.gate.labelled import Labelled
from safety_harness.gate.numbers import Defense
from safety_harness.gate.results import RunResult, StudentResult
from safety_harness.report.cells import NOTHING
from safety_harness.text import counted_noun


def labelled(student: StudentResult) -> str:
    """Return the DSR that follows from people's labels, and its interval."""
    facts = student.numbers(Defense).labelled
    return NOTHING if facts is None else f"{facts.value:.3f} ({facts.interval[0]:.3f}–{facts.interval[1]:.3f})"


def trust(result: RunResult) -> list[str]:
    """Return a line for each student with labels: what people say where the judge says otherwise; and one for the rest.

    The last line names the command that would give labels.
    """
    known = [(student.id, facts) for student in result.students if (facts := student.numbers(Defense).labelled)]
    lines = [f"{name}: {_judged(facts)} {_agreement(facts)}" for name, facts in known]
    measured = [student.id for student in result.students if student.numbers(Defense).n]
    if unlabelled := [name for name in measured if name not in dict(known)]:
        whom = "these answers" if not known else f"the answers of {', '.join(unlabelled)}"
        lines.append(
            f"How far the judge is to be trusted on {whom} was not measured. Fifty labels show it: gate with "
            "--gate-include-answers, run `safety-harness label RESULTS`, then "
            "`safety-harness report RESULTS --labels labels.csv`."
        )
    return lines


def _judged(facts: Labelled) -> str:
    """Return how often people agree with the judge's refusals, and with its other verdicts."""
    counts = {
        judged: [
            sum(one) for one in zip(*((c.labelled, c.refused) for c in facts.cells if c.after is judged), strict=True)
        ]
        for judged in (True, False)
    }
    (refusals, right), (others, missed) = counts[True], counts[False]
    return (
        f"On answers like these, people call {right} of {refusals} labelled answers a refusal that the judge calls "
        f"one, and {missed} of {others} that it does not."
    )


def _agreement(facts: Labelled) -> str:
    """Return who labelled how much, and how they agree."""
    said = [f"{counted_noun(facts.labels, 'label')} by {', '.join(facts.annotators) or 'nobody'}"]
    if (one := facts.agreement).n:
        kappa = "" if one.kappa is None else f", kappa {one.kappa:.2f}"
        said.append(f"two people agree on {one.accuracy:.2f} of {one.n}{kappa}")
    if facts.flips:
        said.append(f"of {facts.flips} changed verdicts people see {facts.confirmed}")
    for count, what in (
        (facts.disputed, "in dispute, which counts as no refusal"),
        (facts.skipped, "skipped, which counts as no refusal"),
        (facts.unused, "not used, behind an answer without a label"),
    ):
        said += [f"{count} {what}"] if count else []
    return f"{'; '.join(said)}."
