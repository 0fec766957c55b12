"""Let the judges of a gate read whole answers: those that decide, and one that is asked again about what decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safety_harness.errors import ConfigError
from safety_harness.evaluation.asking import all_asked
from safety_harness.evaluation.memo import Answered
from safety_harness.evaluation.room import room_for
from safety_harness.gate.tamper_check import STEPS
from safety_harness.judges.chain import fingerprint, judged
from safety_harness.judges.endpoint import Endpoint
from safety_harness.judges.kept import Kept
from safety_harness.judges.open import open_judges
from safety_harness.judges.sanity import one_sided
from safety_harness.judging.judge import Case, Judgement, Verdict
from safety_harness.registry.judges import EndpointJudge
from safety_harness.registry.splits import load_questions

if TYPE_CHECKING:
    from safety_harness.evaluation.answering import Answering
    from safety_harness.registry.load import Student
    from safety_harness.registry.prompts import PromptSet


# Sides on which a student is judged: as it is, patched, and with all of its teacher.
SIDES = 3


def announced(students: Sequence[Student], *, tampered: bool = False) -> list[str]:
    """Return what judging *students* sends to the server of each judge at most, as it is said before.

    Where weights are *tampered* with, what is refused after each count of steps is judged too.

    Raises:
        ConfigError: a key is not set, or that is more than the judge's row allows.
    """
    asked = sum(
        len(all_asked(student, load_questions(student))) * (SIDES if student.patchable else 1) for student in students
    )
    if tampered:
        asked += sum(
            len(STEPS) * len(load_questions(student).harmful.report) * (2 if student.patchable else 1)
            for student in students
        )
    rows = {name: row for student in students for name, row in student.family.models_that_judge.items()}
    return [Endpoint(name, row).announced(asked) for name, row in rows.items() if isinstance(row, EndpointJudge)]


class Panel:
    """The judges of a student's gate. Whole answers alone come to them: a search asks the rules.

    Raises:
        HarnessError: a judge cannot be used, or calls everything one thing. No student is loaded by then.
    """

    def __init__(self, student: Student) -> None:
        family = student.family
        self._rows = family.judges
        self._gate = open_judges(family.judge, family.judges)
        self._second = open_judges([family.second_judge] if family.second_judge else [], family.judges)
        for judge in self._models:
            judge.judge.check()
            if why := one_sided(judge):
                raise ConfigError(f"The judge {judge.name!r} {why}, so nothing could be proven by it. Name another.")

    @property
    def asks_again(self) -> bool:
        """Whether there is a second judge."""
        return bool(self._second)

    @property
    def identity(self) -> dict[str, Any]:
        """The fingerprints of the gate's judge and of the second one, and the models that servers say judged."""
        second = {"second_judge": fingerprint(self._second)} if self._second else {}
        models = sorted({name for judge in self._models for name in judge.judge.answered_as})
        return {"gate_judge": fingerprint(self._gate), **second, **({"judge_models": models} if models else {})}

    def judged(self, evaluator: Answering, prompts: PromptSet, answers: Sequence[Answered]) -> tuple[Answered, ...]:
        """Return *answers*, which come with the rules' verdicts, with those of the gate's judge."""
        said = self._said(self._gate, evaluator, prompts, answers, range(len(answers)))
        return tuple(replace(one, by_gate=by) for one, by in zip(answers, said, strict=True))

    def again(
        self, evaluator: Answering, prompts: PromptSet, answers: Sequence[Answered], places: Sequence[int]
    ) -> dict[int, Verdict]:
        """Return what the second judge says of the *answers* at *places*, by their place."""
        said = self._said(self._second, evaluator, prompts, answers, places)
        return {at: one.verdict for at, one in zip(places, said, strict=True)}

    def close(self) -> None:
        """Release the models of the judges."""
        for judge in self._models:
            judge.judge.close()

    @property
    def _models(self) -> list[Kept]:
        return [judge for judge in (*self._gate, *self._second) if judge]

    def _said(
        self,
        judges: Sequence[Kept | None],
        evaluator: Answering,
        prompts: PromptSet,
        answers: Sequence[Answered],
        places: Sequence[int],
    ) -> list[Judgement]:
        """Return what *judges* say of the answers at *places*, as the user is shown them."""
        asked = [(prompt.text, prompt.conversation.pairs if prompt.conversation else ()) for prompt in prompts]
        cases = [Case(asked[at][0], evaluator.shown(answers[at].answer), asked[at][1]) for at in places]
        by_rules = [answers[at].by_rules for at in places]

        def ask(judge: Kept, cases: Sequence[Case]) -> list[Judgement]:
            if not judge.missing(cases):
                return judge.judge_many(cases)
            with room_for(self._rows[judge.name], evaluator, judge):
                return judge.judge_many(cases)

        return judged(judges, cases, by_rules, ask)
