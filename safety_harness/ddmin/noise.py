"""Reduce with an oracle that errs: ask some questions again, and go back where an answer was wrong.

Refused sets cost one question each: a wrong refusal leaves a unit too many, and nothing worse. Accepted sets are taken
on credit. The search goes on from them at once, and each further success is evidence for the sets before it. When
successes fail to come, and at the end, the latest set is asked about again. That ends when the answers for it lead by
enough, or when it is refuted. A refutation takes the search back to the state before that set. `sprt.py` says how much
is enough.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Self

from safety_harness.ddmin.course import Course
from safety_harness.ddmin.evidence import Record
from safety_harness.ddmin.sprt import Noise, Scores
from safety_harness.ddmin.types import Answer, Phase, Question, Reply

# Refusals in a row after which an unconfirmed set is asked about again. After a wrong acceptance nearly everything is
# refused. On the noisy cells of benchmarks/ddmin, asking again after one refusal costs 6 to 9 % more calls. Waiting for
# five saves 2 to 3 %, but goes on longer from a wrong set.
_DOUBT = 3


@dataclass(frozen=True)
class _Credit:
    """A set accepted on credit, and the state before it was accepted."""

    question: Question
    before: Course


class NoisyCourse:
    """A course over an oracle that errs: the questions of a plain course, some of them more than once.

    sure_of: sets whose answers are known beforehand, and true. confident: in the proof, refusals must be certain too.
    """

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
        self._lead: dict[Question, float] = {}  # evidence for a set, from accepted subsets too, less evidence against
        self._replies: dict[Question, tuple[Reply, ...]] = {}
        self._sure_of = sure_of
        self._confident = confident
        self._credits: tuple[_Credit, ...] = ()  # unconfirmed sets, each a subset of the one before
        self._in_a_row = 0  # refusals since the latest success
        self._confirming = False  # whether the latest credit is being asked about again
        self.best: Question | None = None  # the latest confirmed set
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
        """Whether repeats have turned out to be no new evidence. Then none are asked for."""
        return self._noise.frozen(self.repeats, self.disagreements)

    def question(self) -> Question | None:
        """Return the next question, which may have been asked before; None when all is done."""
        return self._credits[-1].question if self._confirming else self._course.question()

    def tell(self, reply: Reply) -> None:
        """Take another answer to the current question, or another score."""
        question = self.question()
        if question is None:
            raise ValueError("nothing has been asked")
        # An unresolved question stays so, and a known answer is true: neither is evidence to be weighed.
        if isinstance(reply, Answer) and (reply is Answer.UNRESOLVED or question in self._sure_of):
            self._decide(question, reply)
        else:
            self._count_repeat(question, reply)
            self._lead[question] = self._lead.get(question, 0) + self._noise.weight(reply)
            self._weigh(question)
        self._go_on()

    def fork(self) -> Self:
        """Return a copy to look ahead with."""
        twin = copy(self)
        twin._course = self._course.fork()
        twin._lead, twin._replies = self._lead.copy(), self._replies.copy()
        return twin

    def chance(self) -> float:
        """Return the forecast probability that the current question is answered TRUE."""
        return 0.95 if self._confirming else self._course.chance()

    def remaining(self) -> int:
        """Estimate how many questions are still to come."""
        return self._course.remaining() + (round(self._sure / self._noise.vouches) if self._credits else 0)

    def _weigh(self, question: Question) -> None:
        """Act on the evidence for the current question, if it is enough by now."""
        if self._confirming:
            if self._refuted(question):
                self._go_back()
            return
        answer = self._settled(question)
        if answer is not None:
            self._decide(question, answer)

    def _settled(self, question: Question) -> Answer | None:
        """Return what the answers so far amount to; None if they do not lead by enough."""
        replies = self._replies.get(question, ())
        if self.frozen:
            return self._noise.plain(replies[0]) if replies else None
        lead = self._lead.get(question, 0)
        certain = self._certain(self._course)
        # A refusal must rest on answers about the very set; its lead may also come from accepted subsets.
        refused = bool(replies) and (self._noise.refused(replies) if certain is None else lead <= -certain)
        if refused:
            return Answer.FALSE
        return Answer.TRUE if lead >= self._noise.likely else None

    def _refuted(self, question: Question) -> bool:
        """Return whether the latest set accepted on credit has turned out not to be enough."""
        certain = self._certain(self._credits[-1].before)
        return self._lead[question] <= (self._noise.doubtful if certain is None else -certain)

    def _certain(self, course: Course) -> float | None:
        """Return by how much evidence against a question must lead, where more is at stake than one unit; else None.

        A wrong refusal of the full set ends the reduction. In a proof with confidence, each refusal is claimed.
        """
        if course.best is None:
            return self._sure
        return self._noise.certain if self._confident and course.phase == "certify" else None

    def _decide(self, question: Question, answer: Answer) -> None:
        """Go on with an answer, on credit if it is TRUE."""
        if self._confirming:
            self._go_back(answer)
            return
        if answer is Answer.TRUE:
            # What a subset can do, the sets before it can do: of a monotone oracle this is evidence for each of them.
            for credit in self._credits:
                self._lead[credit.question] = self._lead.get(credit.question, 0) + self._noise.vouches
            self._credits += (_Credit(question, self._course.snapshot()),)
            self._in_a_row = 0
        else:
            self._in_a_row += 1
        self._course.tell(answer)

    def _go_back(self, answer: Answer = Answer.FALSE) -> None:
        """Return to the state before the latest credit, which was accepted wrongly, and give it the other answer."""
        *earlier, wrong = self._credits
        self._credits = tuple(earlier)
        for credit in self._credits:  # the wrong set is no longer evidence for them
            self._lead[credit.question] -= self._noise.vouches
        self._course = wrong.before.snapshot()  # copies of this state may go back to the same one
        self._course.tell(answer)
        self._in_a_row = 0

    def _go_on(self) -> None:
        """Confirm what the evidence allows, use answers at hand, and choose what to ask next.

        Each round may make the next one possible. A confirmed set ends a doubt. A question that was asked before the
        search went back is settled without a call, and opens the next question.
        """
        while True:
            self._confirm()
            # A row of refusals is what a wrong acceptance looks like. At the end nothing may stay unconfirmed.
            doubt = self._in_a_row >= _DOUBT or self._course.question() is None
            # Once begun, confirming lasts until the set is confirmed or refuted: its evidence must reach one of both.
            self._confirming = bool(self._credits) and (self._confirming or doubt)
            question = self._course.question()
            if self._confirming or question is None:
                return
            answer = self._settled(question)
            if answer is None or question in self._sure_of:  # ask; a known answer costs the caller no call
                return
            self._decide(question, answer)

    def _confirm(self) -> None:
        """Accept for good the latest set for which the evidence leads by enough, and all sets before it."""
        for place in range(len(self._credits) - 1, -1, -1):
            question = self._credits[place].question
            sure = self.frozen or question in self._sure_of or self._lead.get(question, 0) >= self._sure
            # While the latest set is in question, a sure earlier one must not end the matter.
            if sure and (place == len(self._credits) - 1 or not self._confirming):
                self._credits = self._credits[place + 1 :]
                self.best = question
                self._confirming = False
                self._in_a_row = 0
                return

    def _count_repeat(self, question: Question, reply: Reply) -> None:
        """Keep a reply, and count it if the question was asked before. Disagreements are with the first reply."""
        earlier = self._replies.get(question, ())
        if earlier:
            self.repeats += 1
            self.disagreements += reply != earlier[0]
        self._replies[question] = (*earlier, reply)
