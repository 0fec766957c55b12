"""Oracles that err now and then: how often to ask the same question, and what to do when an answer was wrong.

Sets that are refused cost one question each, as ever. Sets that are accepted are taken on credit: the search
goes on from them at once, and each further success vouches for the sets before it. Only when successes fail to
come, or at the end, is the latest set asked about again, until the answers for it lead by enough (Wald's
sequential probability ratio test) or it is refuted. Then the search goes back to the state before it.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from math import ceil, log
from typing import Self

from safety_harness.ddmin.course import Course
from safety_harness.ddmin.errors import ArgumentError
from safety_harness.ddmin.evidence import Record
from safety_harness.ddmin.types import Answer, Phase, Question

_DOUBT = 3  # refusals in a row after which an unconfirmed set is asked about again
_HASTY = 0.05  # tolerated chance that one step of the search goes wrong: the search can go back
_CERTAIN = 1e-3  # tolerated chance that a kept unit is not needed, where confidence is asked for
_FROZEN = 0.01  # chance of so many agreeing repeats below which they are taken for one answer


@dataclass(frozen=True)
class Noise:
    """How much an oracle errs, and how sure its result is to be.

    flips: the share of answers that come out wrong, 0 < flips < .5, each independently of the others, repeats
        included. A repeat is evidence only if it is a new measurement: fresh seeds or other samples.
    error: tolerated probability that the returned set is not one that the oracle truly accepts. A long search
        gives chance many openings, so more units need more answers.
    """

    flips: float = 0.02
    error: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.flips < 0.5:
            raise ArgumentError(f"flips is {self.flips}; use a share above 0 and below .5")
        if not 0 < self.error < 1:
            raise ArgumentError(f"error is {self.error}; use a probability above 0 and below 1")

    def sure(self, units: int) -> int:
        """By how many answers one side must lead to settle a question for good, in a search over `units`."""
        return self._lead(self.error / max(units, 1))

    @property
    def likely(self) -> int:
        """By how many answers one side must lead for the search to go on from there."""
        return self._lead(_HASTY)

    @property
    def certain(self) -> int:
        """By how many refusals a kept unit counts as tested, where confidence is asked for."""
        return self._lead(_CERTAIN)

    def frozen(self, repeats: int, disagreements: int) -> bool:
        """Whether repeats agree too well to be measurements of their own."""
        agree = (1 - self.flips) ** 2 + self.flips**2
        return disagreements == 0 and agree**repeats < _FROZEN

    def _lead(self, error: float) -> int:
        return ceil(log(1 / error) / log((1 - self.flips) / self.flips))


@dataclass(frozen=True)
class _Credit:
    """A set accepted on credit, and the state before it was."""

    question: Question
    before: Course


class NoisyCourse:
    """A course over an oracle that errs: the same questions, some of them more than once."""

    def __init__(
        self, course: Course, noise: Noise, sure_of: frozenset[Question] = frozenset(), *, confident: bool = False
    ) -> None:
        self._course = course
        self._noise = noise
        self._sure = noise.sure((course.question() or 0).bit_count())
        self._lead: dict[Question, int] = {}  # answers for a set, its accepted subsets included, less those against
        self._first: dict[Question, Answer] = {}
        self._sure_of = sure_of  # sets of which the answer is known beforehand
        self._confident = confident  # refusals in the proof must be certain, too
        self._credits: tuple[_Credit, ...] = ()
        self._in_a_row = 0
        self._confirming = False
        self.best: Question | None = None
        self.repeats = self.disagreements = 0

    @property
    def phase(self) -> Phase:
        return self._course.phase

    @property
    def record(self) -> Record:
        return self._course.record

    @property
    def refused(self) -> Answer | None:
        return self._course.refused

    @property
    def frozen(self) -> bool:
        """Whether the oracle's repeats have shown to be no new evidence; then none are asked for."""
        return self._noise.frozen(self.repeats, self.disagreements)

    def question(self) -> Question | None:
        """The next question, which may have been asked before; None when all is done."""
        return self._credits[-1].question if self._confirming else self._course.question()

    def tell(self, answer: Answer) -> None:
        """Take one more answer to the current question."""
        question = self.question()
        if question is None:
            raise ValueError("nothing has been asked")
        if answer is Answer.UNRESOLVED or question in self._sure_of:
            self._decide(question, answer)
        else:
            self._count_repeat(question, answer)
            lead = self._lead.get(question, 0) + (1 if answer is Answer.TRUE else -1)
            self._lead[question] = lead
            self._weigh(question)
        self._go_on()

    def fork(self) -> Self:
        """A copy to look ahead with."""
        twin = copy(self)
        twin._course = self._course.fork()
        twin._lead, twin._first = self._lead.copy(), self._first.copy()
        return twin

    def chance(self) -> float:
        """The forecast probability that the current question is answered TRUE."""
        return 0.95 if self._confirming else self._course.chance()

    def remaining(self) -> int:
        """Roughly how many questions are still to come."""
        return self._course.remaining() + (self._sure if self._credits else 0)

    def _weigh(self, question: Question) -> None:
        if self._confirming:
            if self._lead[question] <= -self._against(self._credits[-1].before):
                self._go_back()
            return
        answer = self._settled(question)
        if answer is not None:
            self._decide(question, answer)

    def _settled(self, question: Question) -> Answer | None:
        """What the answers so far amount to, if they lead by enough."""
        lead = self._lead.get(question, 0)
        if lead >= (1 if self.frozen else self._noise.likely):
            return Answer.TRUE
        return Answer.FALSE if lead <= -(1 if self.frozen else self._against(self._course)) else None

    def _against(self, course: Course) -> int:
        """By how many refusals a question of the course must lead to be answered FALSE."""
        if course.best is None:
            return self._sure
        return self._noise.certain if self._confident and course.phase == "certify" else self._noise.likely

    def _decide(self, question: Question, answer: Answer) -> None:
        """Let the course go on with an answer, on credit if it is TRUE."""
        if self._confirming:
            self._go_back(answer)
            return
        if answer is Answer.TRUE:
            for credit in self._credits:
                self._lead[credit.question] = self._lead.get(credit.question, 0) + 1
            self._credits += (_Credit(question, self._course.snapshot()),)
            self._in_a_row = 0
        else:
            self._in_a_row += 1
        self._course.tell(answer)

    def _go_back(self, answer: Answer = Answer.FALSE) -> None:
        """The latest set was accepted wrongly: back to the state before it, with the other answer."""
        *earlier, wrong = self._credits
        self._credits = tuple(earlier)
        for credit in self._credits:  # it no longer vouches for them
            self._lead[credit.question] -= 1
        self._course = wrong.before.snapshot()  # copies of this state may go back to the same one
        self._course.tell(answer)
        self._in_a_row = 0

    def _go_on(self) -> None:
        """Confirm what can be, settle what is known already, and choose what to ask."""
        while True:
            self._confirm()
            doubt = self._in_a_row >= _DOUBT or self._course.question() is None
            self._confirming = bool(self._credits) and (self._confirming or doubt)
            question = self._course.question()
            if self._confirming or question is None:
                return
            answer = self._settled(question)
            if answer is None or question in self._sure_of:
                return
            self._decide(question, answer)

    def _confirm(self) -> None:
        """Accept for good the latest set for which the answers lead by enough, and with it all before it."""
        for place in range(len(self._credits) - 1, -1, -1):
            question = self._credits[place].question
            sure = self.frozen or question in self._sure_of or self._lead.get(question, 0) >= self._sure
            if sure and (place == len(self._credits) - 1 or not self._confirming):
                self._credits = self._credits[place + 1 :]
                self.best = question
                self._confirming = False
                self._in_a_row = 0
                return

    def _count_repeat(self, question: Question, answer: Answer) -> None:
        if question in self._first:
            self.repeats += 1
            self.disagreements += answer is not self._first[question]
        else:
            self._first[question] = answer
