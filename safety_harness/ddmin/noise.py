"""Oracles that err now and then: how often to ask the same question, and what to do when an answer was wrong.

Sets that are refused cost one question each, as ever. Sets that are accepted are taken on credit: the search
goes on from them at once, and each further success vouches for the sets before it. Only when successes fail to
come, or at the end, is the latest set asked about again, until the answers for it lead by enough or it is
refuted. Then the search goes back to the state before it. How much is enough, `sprt.py` says.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Self

from safety_harness.ddmin.course import Course
from safety_harness.ddmin.evidence import Record
from safety_harness.ddmin.sprt import Noise, Scores
from safety_harness.ddmin.types import Answer, Phase, Question, Reply

_DOUBT = 3  # refusals in a row after which an unconfirmed set is asked about again


@dataclass(frozen=True)
class _Credit:
    """A set accepted on credit, and the state before it was."""

    question: Question
    before: Course


class NoisyCourse:
    """A course over an oracle that errs: the same questions, some of them more than once."""

    def __init__(
        self,
        course: Course,
        noise: Noise | Scores,
        sure_of: frozenset[Question] = frozenset(),
        *,
        confident: bool = False,
    ) -> None:
        self._course = course
        self._noise = noise
        self._sure = noise.sure((course.question() or 0).bit_count())
        self._lead: dict[Question, float] = {}  # evidence for a set, its accepted subsets included, less that against
        self._replies: dict[Question, tuple[Reply, ...]] = {}
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

    def tell(self, reply: Reply) -> None:
        """Take one more answer to the current question, or one more score."""
        question = self.question()
        if question is None:
            raise ValueError("nothing has been asked")
        if isinstance(reply, Answer) and (reply is Answer.UNRESOLVED or question in self._sure_of):
            self._decide(question, reply)
        else:
            self._count_repeat(question, reply)
            self._lead[question] = self._lead.get(question, 0) + self._noise.weight(reply)
            self._weigh(question)
        self._go_on()

    def fork(self) -> Self:
        """A copy to look ahead with."""
        twin = copy(self)
        twin._course = self._course.fork()
        twin._lead, twin._replies = self._lead.copy(), self._replies.copy()
        return twin

    def chance(self) -> float:
        """The forecast probability that the current question is answered TRUE."""
        return 0.95 if self._confirming else self._course.chance()

    def remaining(self) -> int:
        """Roughly how many questions are still to come."""
        return self._course.remaining() + (round(self._sure / self._noise.vouches) if self._credits else 0)

    def _weigh(self, question: Question) -> None:
        if self._confirming:
            if self._refuted(question):
                self._go_back()
            return
        answer = self._settled(question)
        if answer is not None:
            self._decide(question, answer)

    def _settled(self, question: Question) -> Answer | None:
        """What the answers so far amount to, if they lead by enough."""
        replies = self._replies.get(question, ())
        if self.frozen:
            return self._noise.plain(replies[0]) if replies else None
        lead = self._lead.get(question, 0)
        certain = self._certain(self._course)
        refused = bool(replies) and (self._noise.refused(replies) if certain is None else lead <= -certain)
        if refused:
            return Answer.FALSE
        return Answer.TRUE if lead >= self._noise.likely else None

    def _refuted(self, question: Question) -> bool:
        """Whether the latest set accepted on credit has turned out not to be enough."""
        certain = self._certain(self._credits[-1].before)
        return self._lead[question] <= (self._noise.doubtful if certain is None else -certain)

    def _certain(self, course: Course) -> float | None:
        """By how much the evidence against a question of the course must lead, where more is at stake than a unit."""
        if course.best is None:
            return self._sure
        return self._noise.certain if self._confident and course.phase == "certify" else None

    def _decide(self, question: Question, answer: Answer) -> None:
        """Let the course go on with an answer, on credit if it is TRUE."""
        if self._confirming:
            self._go_back(answer)
            return
        if answer is Answer.TRUE:
            for credit in self._credits:
                self._lead[credit.question] = self._lead.get(credit.question, 0) + self._noise.vouches
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
            self._lead[credit.question] -= self._noise.vouches
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

    def _count_repeat(self, question: Question, reply: Reply) -> None:
        earlier = self._replies.get(question, ())
        if earlier:
            self.repeats += 1
            self.disagreements += reply != earlier[0]
        self._replies[question] = (*earlier, reply)
