"""What the gate reads: a student under a set of units, measured on the held-out report split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safety_harness import gate
from safety_harness.bench import Answered, Bench
from safety_harness.errors import VoidProbe
from safety_harness.judges import Verdict
from safety_harness.oracle import Oracle
from safety_harness.patches import Patch
from safety_harness.prompts import PromptSet
from safety_harness.questions import further_questions
from safety_harness.results import Check
from safety_harness.stats import Rate
from safety_harness.units import Group, Unit, flat, group_id, grouped


@dataclass(frozen=True)
class Subject:
    """A student with *units* of its teacher in it; no units: the student as it is.

    Each method is one check of the gate. ``since`` is the subject that it is compared with, usually the
    student as it is.
    """

    bench: Bench
    units: tuple[Unit, ...] = ()

    def __repr__(self) -> str:
        return f"<{self.bench.student.id} with {len(self.units)} units of its teacher>"

    def defense(self, since: Subject) -> Check:
        """Refusals of held-out harmful questions."""
        prompts = self.bench.questions.harmful.report
        return gate.defense(since._verdicts(prompts), self._verdicts(prompts), _ids(prompts), self._settings)

    def over_refusal(self, since: Subject) -> Check:
        """Refusals of held-out harmless questions."""
        prompts = self.bench.questions.harmless.report
        return gate.over_refusal(since._verdicts(prompts), self._verdicts(prompts), _ids(prompts), self._settings)

    def task(self, since: Subject) -> Check:
        """Right answers to the student's own held-out task."""
        sides = self.bench.questions.task
        if sides is None:
            return gate.no_task()
        before = self.bench.right(since.units, sides.report)
        return gate.task(before, self.bench.right(self.units, sides.report), self._settings)

    def perplexity(self, since: Subject) -> Check:
        """Token-weighted perplexity of the family's text."""
        text = self.bench.questions.text
        before, after = self.bench.text(since.units, text), self.bench.text(self.units, text)
        return gate.perplexity([(s.nll, s.tokens) for s in before], [(s.nll, s.tokens) for s in after], self._settings)

    def divergence(self) -> Check:
        """KL from the student on the held-out harmless questions, along the student's own answers."""
        return gate.divergence(self.bench.divergences(self.units, self.bench.questions.harmless.report), self._settings)

    def minimality(self, patch: Patch) -> Check:
        """What a search leaves out at once, left out once, asked afresh of the oracle that it had."""
        self.bench.forget()
        groups = grouped(self.units, self.bench.student.family.search.together)
        target = patch.search["target"] if patch.found else None
        without = _without_each(groups, Oracle(self.bench, target)) if groups else {}
        return gate.minimality(without, found=patch.found, reason=patch.reason)

    def lineage(self) -> dict[str, Any]:
        """Plain facts for the report: how near student and teacher are, and in which settings they differ."""
        return asdict(self.bench.lineage) if self.bench.lineage else {}

    def refused(self, prompts: PromptSet) -> dict[str, Any]:
        """Plain counts for the report: how many of *prompts* are refused, with the interval of their rate."""
        verdicts = self._verdicts(prompts)
        found = Rate(verdicts.count(Verdict.REFUSED), len(verdicts))
        return {"refused": found.k, "n": found.n, "interval": list(found.interval(self._settings.confidence))}

    def further(self, since: Subject) -> dict[str, dict[str, Any]]:
        """Plain counts for the report, before and after, of each further set of questions of the family."""
        kinds = self.bench.student.family.further
        return {
            name: {"kind": kinds[name].kind, "before": since.refused(prompts), "after": self.refused(prompts)}
            for name, prompts in further_questions(self.bench.student.family, self.bench.questions).items()
        }

    @property
    def _settings(self) -> Any:
        return self.bench.student.family.gate

    def _verdicts(self, prompts: PromptSet) -> list[Verdict]:
        answered: Sequence[Answered] = self.bench.asked(self.units, prompts)
        return [answer.verdict for answer in answered]


def _without_each(groups: Sequence[Group], oracle: Oracle) -> dict[str, bool | None]:
    found: dict[str, bool | None] = {}
    for group in groups:
        try:
            found[group_id(group)] = oracle(flat(other for other in groups if other != group))
        except VoidProbe:
            found[group_id(group)] = None
    return found


def _ids(prompts: PromptSet) -> list[str]:
    return [prompt.id for prompt in prompts]
