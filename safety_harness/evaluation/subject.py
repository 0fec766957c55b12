"""What the gate reads: a student under a set of units, measured on the held-out report split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from safety_harness.errors import VoidProbe
from safety_harness.evaluation.evaluator import Answered, Evaluator
from safety_harness.evaluation.oracle import Oracle
from safety_harness.gate import checks
from safety_harness.gate.records import Patch
from safety_harness.gate.results import Asked, Check
from safety_harness.gate.statistics import Rate
from safety_harness.judging.judge import Verdict
from safety_harness.registry.prompts import PromptSet
from safety_harness.registry.splits import further_questions
from safety_harness.weights.units import Group, Unit, flat, group_id, grouped

Answers = Sequence[Answered]


@dataclass(frozen=True)
class Subject:
    """A student with *units* of its teacher in it; no units: the student as it is.

    Each method is one check of the gate. ``since`` is the subject that it is compared with, usually the
    student as it is.

    Raises:
        VoidProbe, SourceError: from a check, when a NaN or an infinity comes out of the patched student, or out of the
            student as it is.
        DataError: from a check, when there are too few questions or documents for an interval.
    """

    evaluator: Evaluator
    units: tuple[Unit, ...] = ()

    def __repr__(self) -> str:
        return f"<{self.evaluator.student.id} with {len(self.units)} units of its teacher>"

    def defense(self, since: Subject) -> Check:
        """Refusals of held-out harmful questions."""
        prompts = self.evaluator.questions.harmful.report
        before, after = self._said(since, prompts)
        check = checks.defense(_verdicts(before), _verdicts(after), self._settings)
        return _with_each(check, prompts, before, after)

    def over_refusal(self, since: Subject) -> Check:
        """Refusals of held-out harmless questions."""
        prompts = self.evaluator.questions.harmless.report
        before, after = self._said(since, prompts)
        check = checks.over_refusal(_verdicts(before), _verdicts(after), self._settings)
        return _with_each(check, prompts, before, after)

    def task(self, since: Subject) -> Check:
        """Right answers to the student's own held-out task."""
        sides = self.evaluator.questions.task
        if sides is None:
            return checks.no_task()
        before, after = self._said(since, sides.report)
        was, now = (self.evaluator.right(units, sides.report) for units in (since.units, self.units))
        marks = ("".join("+" if right else "-" for right in each) for each in (was, now))
        return _with_each(checks.task(was, now, self._settings), sides.report, before, after, *marks)

    def perplexity(self, since: Subject) -> Check:
        """Token-weighted perplexity of the family's text."""
        text = self.evaluator.questions.text
        before, after = self.evaluator.text(since.units, text), self.evaluator.text(self.units, text)
        return checks.perplexity(
            [(s.nll, s.tokens) for s in before], [(s.nll, s.tokens) for s in after], self._settings
        )

    def divergence(self) -> Check:
        """KL from the student on the held-out harmless questions, along the student's own answers."""
        return checks.divergence(
            self.evaluator.divergences(self.units, self.evaluator.questions.harmless.report), self._settings
        )

    def minimality(self, patch: Patch) -> Check:
        """The patch, and what a search leaves out at once, left out once: asked afresh of the oracle that it had."""
        self.evaluator.forget()
        groups = grouped(self.units, patch.together)
        if not groups:
            return checks.minimality({}, accepted=True, found=patch.found, reason=patch.reason)
        oracle = Oracle(self.evaluator, **patch.search.budgets.model_dump())
        accepted = _unless_void(oracle, groups)
        without = {}
        for group in groups if accepted else ():
            without[group_id(group)] = _unless_void(oracle, [other for other in groups if other != group])
        return checks.minimality(without, accepted=accepted, found=patch.found, reason=patch.reason)

    def moved(self) -> dict[str, Any]:
        """Plain facts for the report: the model's layers and roles, and each touched module's share moved, 0..1."""
        every = {unit.module: unit for unit in self.evaluator.units}
        return {
            "layers": 1 + max(unit.layer for unit in every.values()),
            "roles": list(dict.fromkeys(unit.role for unit in every.values())),
            "share": {unit.module: unit.parameters / every[unit.module].parameters for unit in self.units},
        }

    def lineage(self) -> dict[str, Any]:
        """Plain facts for the report: how near student and teacher are, and in which settings they differ."""
        return asdict(self.evaluator.lineage) if self.evaluator.lineage else {}

    def refused(self, prompts: PromptSet) -> dict[str, Any]:
        """Plain counts for the report: how many of *prompts* are refused, with the interval of their rate."""
        verdicts = _verdicts(self.evaluator.asked(self.units, prompts))
        found = Rate(verdicts.count(Verdict.REFUSED), len(verdicts))
        return {"refused": found.k, "n": found.n, "interval": list(found.interval(self._settings.confidence))}

    def further(self, since: Subject) -> dict[str, dict[str, Any]]:
        """Plain counts for the report, before and after, of each further set of questions of the family."""
        kinds = self.evaluator.student.family.further
        return {
            name: {"kind": kinds[name].kind, "before": since.refused(prompts), "after": self.refused(prompts)}
            for name, prompts in further_questions(self.evaluator.student.family, self.evaluator.questions).items()
        }

    def _said(self, since: Subject, prompts: PromptSet) -> tuple[Answers, Answers]:
        """What *since* and this subject answer, in batches of one size, so that a question's two answers are a pair."""
        while True:
            size = self.evaluator.generator.batch_size
            said = since.evaluator.asked(since.units, prompts), self.evaluator.asked(self.units, prompts)
            if self.evaluator.generator.batch_size == size:
                return said

    @property
    def _settings(self) -> Any:
        return self.evaluator.student.gate


def _verdicts(answers: Answers) -> list[Verdict]:
    return [answer.verdict for answer in answers]


def _with_each(check: Check, prompts: PromptSet, before: Answers, after: Answers, *marks: str) -> Check:
    """*check* with what became of each question; the letters are the verdicts' where no *marks* are given."""
    letters = marks or (checks.letters(_verdicts(answers)) for answers in (before, after))
    texts = (tuple(answer.answer for answer in answers) for answers in (before, after))
    return replace(check, asked=Asked(prompts.sha256, *letters, *texts))


def _unless_void(oracle: Oracle, groups: Sequence[Group]) -> bool | None:
    try:
        return oracle(flat(groups))
    except VoidProbe:
        return None
