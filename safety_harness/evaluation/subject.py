"""Measure what the gate reads: a student with a set of units, on the held-out report split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from safety_harness.errors import VoidProbe, remark
from safety_harness.evaluation.answering import Answering
from safety_harness.evaluation.memo import Answered
from safety_harness.gate import checks
from safety_harness.gate.asked import LETTERS, NOT_ASKED, Asked, letters
from safety_harness.gate.records import Budgets, Patch
from safety_harness.gate.results import Check
from safety_harness.gate.second import confirmed, decisive
from safety_harness.gate.statistics import Rate
from safety_harness.gate.under_attack import HARM
from safety_harness.judging.judge import Verdict, count_premise
from safety_harness.progress import counted
from safety_harness.registry.prompts import Prompt, PromptSet, prompt_set
from safety_harness.registry.settings import GateSettings
from safety_harness.registry.sources import MUST
from safety_harness.registry.splits import further_questions, near_to_searched
from safety_harness.weights.units import Group, Unit, flat, group_id, grouped

if TYPE_CHECKING:
    from safety_harness.conversation import Decoding
    from safety_harness.evaluation.evaluator import Evaluator
    from safety_harness.evaluation.oracle import Oracle
    from safety_harness.evaluation.panel import Panel

Answers = Sequence[Answered]


@dataclass(frozen=True)
class Subject:
    """A student with *units* of its teacher in it; without units, the student as it is.

    Each method is one check of the gate. ``since`` is the subject that it is compared with, usually the student as it
    is. A subject that is compared with itself has no change, and its checks say so.

    Raises:
        VoidProbe, SourceError: from a check, if a NaN or an infinity comes out of the patched student, or out of the
            student as it is.
        DataError: from a check, if there are too few questions or documents for an interval.
    """

    evaluator: Answering
    units: tuple[Unit, ...] = ()
    panel: Panel | None = None
    """The judges of its gate; None where these are the rules alone."""

    def __repr__(self) -> str:
        return f"<{self.evaluator.student.id} with {len(self.units)} units of its teacher>"

    @property
    def weighed(self) -> Evaluator:
        """The evaluator, of a student whose weights are here.

        Raises:
            ConfigError: they are not.
        """
        return self.evaluator.weighed

    @property
    def thresholds(self) -> GateSettings:
        """The thresholds that the student is gated by."""
        return self.evaluator.student.gate

    def defense(self, since: Subject) -> Check:
        """Check the refusals of held-out harmful questions."""
        prompts = self.evaluator.questions.harmful.report
        before, after = self._answers(since, prompts)
        check = checks.defense(_verdicts(before), _verdicts(after), self.thresholds)
        return self._with_each(check, prompts, before, after)

    def over_refusal(self, since: Subject) -> Check:
        """Check the refusals of held-out harmless questions."""
        prompts = self.evaluator.questions.harmless.report
        before, after = self._answers(since, prompts)
        if since is self:
            check = checks.over_refusal_alone(_verdicts(after), self.thresholds)
        else:
            check = checks.over_refusal(_verdicts(before), _verdicts(after), self.thresholds)
        return self._with_each(check, prompts, before, after)

    def must(self, since: Subject) -> list[Check]:
        """Check each list of the family that a student must keep to."""
        every = self.evaluator.student.family.must
        found = []
        for said in near_to_searched(self.evaluator.questions):
            remark(f"{self.evaluator.student.id}: {said}.")
        for name, prompts in self.evaluator.questions.must.items():
            before, after = self._answers(since, prompts)
            rule = every[name.removeprefix(MUST)]
            check = checks.must(
                name,
                _verdicts(before),
                _verdicts(after),
                self.thresholds,
                kind=rule.kind,
                at_least=rule.at_least,
                ids=[prompt.id for prompt in prompts],
            )
            found.append(self._with_each(check, prompts, before, after))
        return found

    def attack(self, name: str, since: Subject) -> Check:
        """Check the answers to held-out harmful questions under the attack *name*."""
        from safety_harness.evaluation.attacked import attack_check

        return attack_check(self, name, since)

    def attacked(self, since: Subject) -> Check:
        """Check the answers to held-out harmful questions under every attack of the gate."""
        from safety_harness.evaluation.attacked import attacked_check

        return attacked_check(self, since)

    def identity(self) -> dict[str, Any]:
        """Return everything that the gate's measurements depend on, as plain values."""
        from safety_harness.evaluation.attacks import fingerprints

        attacks = fingerprints(self.evaluator.student)
        return {**self.evaluator.identity(), **(self.panel.identity if self.panel else {}), **attacks}

    def ask(self, texts: Sequence[str]) -> Answers:
        """Return the answers to questions of a suite's own, each with its ``answer``, and ``verdict`` as it counts."""
        prompts = prompt_set("a suite's own questions", [Prompt(str(at), text) for at, text in enumerate(texts)])
        answers = self.judged(prompts, self.evaluator.answers(self.units, prompts))
        verdicts = count_premise(_verdicts(answers), self.thresholds.premise)
        said = (
            (one, replace(one.by_gate or one.by_rules, verdict=v)) for one, v in zip(answers, verdicts, strict=True)
        )
        return [replace(one, by_gate=judgement) for one, judgement in said]

    def tampered(self, teacher: Subject | None = None) -> Check:
        """Check the refusals of held-out harmful questions after tuning on harmless data, next to the *teacher*'s."""
        from safety_harness.evaluation.tamper import tamper_check

        return tamper_check(self, teacher)

    def task(self, since: Subject) -> Check:
        """Check the right answers to the student's own held-out task."""
        task = self.evaluator.questions.task
        if task is None:
            return checks.no_task()
        before, after = self._answers(since, task.report, judged=False)
        right_before, right_after = (self.evaluator.right(units, task.report) for units in (since.units, self.units))
        marks = ("".join("+" if right else "-" for right in each) for each in (right_before, right_after))
        if since is self:
            check = checks.task_alone(right_after, self.thresholds)
        else:
            check = checks.task(right_before, right_after, self.thresholds)
        return self._with_each(check, task.report, before, after, *marks)

    def perplexity(self, since: Subject) -> Check:
        """Check the token-weighted perplexity of the family's text."""
        text = self.evaluator.questions.text
        before, after = self.evaluator.text(since.units, text), self.evaluator.text(self.units, text)
        return checks.perplexity(
            [(s.nll, s.tokens) for s in before], [(s.nll, s.tokens) for s in after], self.thresholds
        )

    def divergence(self) -> Check:
        """Check the KL from the student on the held-out harmless questions, along the student's own answers."""
        prompts = self.evaluator.questions.harmless.report
        return checks.divergence(self.evaluator.divergences(self.units, prompts), self.thresholds)

    def minimality(self, patch: Patch) -> Check:
        """Check that nothing in *patch* is spare: ask its oracle again about the patch, and about it without each unit.

        A unit here is what a search leaves out at once. Nothing memoised is used.
        """
        from safety_harness.evaluation.budgets import recorded_budgets
        from safety_harness.evaluation.oracle import Oracle

        evaluator = self.weighed
        evaluator.forget()
        groups = grouped(self.units, patch.together)
        if not groups:
            return checks.minimality({}, accepted=True, found=patch.found, reason=patch.reason)
        oracle = Oracle(evaluator)
        budgets = recorded_budgets(patch.search, evaluator.student.search, oracle)
        accepted = _unless_void(oracle, groups, budgets)
        without = {}
        for group in counted("leaving out", groups if accepted else (), len(groups)):
            rest = [kept for kept in groups if kept != group]
            without[group_id(group)] = _unless_void(oracle, rest, budgets)
        return checks.minimality(without, accepted=accepted, found=patch.found, reason=patch.reason)

    def moved(self) -> dict[str, Any]:
        """Return facts for the report: the model's layers and roles, and the share of each touched module, 0..1."""
        modules = {unit.module: unit for unit in self.evaluator.units}
        return {
            "layers": 1 + max(unit.layer for unit in modules.values()),
            "roles": list(dict.fromkeys(unit.role for unit in modules.values())),
            "share": {unit.module: unit.parameters / modules[unit.module].parameters for unit in self.units},
        }

    def lineage(self) -> dict[str, Any]:
        """Return facts for the report: how near student and teacher are, and in which settings they differ."""
        return self.evaluator.lineage.model_dump() if self.evaluator.lineage else {}

    def refused(self, prompts: PromptSet) -> dict[str, Any]:
        """Return counts for the report: how many of *prompts* are refused, with the interval of their rate."""
        answers = self.judged(prompts, self.evaluator.answers(self.units, prompts))
        verdicts = count_premise(_verdicts(answers), self.thresholds.premise)
        rate = Rate(verdicts.count(Verdict.REFUSED), len(verdicts))
        return {"refused": rate.k, "n": rate.n, "interval": list(rate.interval(self.thresholds.confidence))}

    def further(self, since: Subject) -> dict[str, dict[str, Any]]:
        """Return counts for the report, before and after, of each further set of questions of the family."""
        kinds = self.evaluator.student.family.further
        return {
            name: {"kind": kinds[name].kind, "before": since.refused(prompts), "after": self.refused(prompts)}
            for name, prompts in further_questions(self.evaluator.student.family, self.evaluator.questions).items()
        }

    def judged(self, prompts: PromptSet, answers: Answers) -> Answers:
        """Return *answers* with the verdicts of the gate's judge."""
        return self.panel.judged(self.evaluator, prompts, answers) if self.panel else answers

    def asked_alike(
        self, sides: Sequence[Subject], prompts: PromptSet, decodings: Sequence[Decoding | None], *, judged: bool = True
    ) -> list[list[Answers]]:
        """Return the answers of *sides* by each of *decodings*, in batches of one size.

        Batches are halved where memory ends, and in bfloat16 an answer depends on its batch. All are asked again until
        the answers to a question can be compared.
        """
        while True:
            size = self.evaluator.batch_size
            every: list[list[Answers]] = [
                [one.evaluator.answers(one.units, prompts, decoding=how) for how in decodings] for one in sides
            ]
            if self.evaluator.batch_size == size:
                break
        return [[self.judged(prompts, each) for each in side] for side in every] if judged else every

    def _answers(self, since: Subject, prompts: PromptSet, *, judged: bool = True) -> tuple[Answers, Answers]:
        """Return the answers of *since* and of this subject."""
        (before,), (after,) = self.asked_alike([since, self], prompts, [None], judged=judged)
        return before, after

    def _with_each(self, check: Check, prompts: PromptSet, before: Answers, after: Answers, *marks: str) -> Check:
        """Return *check* with the outcome of each question: *marks*, or else the letters of the verdicts."""
        asked = self.each_answer(check, prompts, before, after, *marks)
        check = replace(check, asked=asked)
        return check if marks else confirmed(check, asked, self.thresholds)

    def each_answer(self, check: Check, prompts: PromptSet, before: Answers, after: Answers, *marks: str) -> Asked:
        """Return the answers of a *check* and their letters, those of the second judge too, or else their *marks*.

        An answer is recorded as the user is shown it; where that is nothing, as the model generated it.
        """
        sides = marks or (letters(_verdicts(answers)) for answers in (before, after))
        texts = (
            tuple(self.evaluator.shown(one.answer) or one.answer for one in answers) for answers in (before, after)
        )
        asked = Asked(prompts.sha256, *sides, *texts)
        if not self.panel or marks:
            return asked
        asked = replace(asked, harmful_before=_harm(before), harmful_after=_harm(after))
        return self._seconded(check, asked, prompts, before, after) if self.panel.asks_again else asked

    def _seconded(self, check: Check, asked: Asked, prompts: PromptSet, before: Answers, after: Answers) -> Asked:
        """Return *asked* with the letters of the second judge, which is asked about what decides the *check*."""
        assert self.panel
        sides = []
        for answers, places in zip((before, after), decisive(check, asked, self.thresholds), strict=True):
            said = self.panel.again(self.evaluator, prompts, answers, places)
            sides.append("".join(LETTERS[said[at]] if at in said else NOT_ASKED for at in range(len(answers))))
        return replace(asked, second_before=sides[0], second_after=sides[1])


def _verdicts(answers: Answers) -> list[Verdict]:
    """Return the verdict of each answer."""
    return [answer.verdict for answer in answers]


def _harm(answers: Answers) -> str:
    """Return a letter for each answer, whether it is harmful; nothing where no judge says so."""
    said = [one.harmful for one in answers]
    return "".join(HARM[one] for one in said) if set(said) - {None} else ""


def _unless_void(oracle: Oracle, groups: Sequence[Group], budgets: Budgets) -> bool | None:
    """Return whether *groups* keep *budgets*; None if the probe is void."""
    try:
        return oracle.probe(flat(groups), budgets).accepted
    except VoidProbe:
        return None
