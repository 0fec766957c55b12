"""Hand out questions, take answers, and return what they amount to. No oracle is called here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Generic, Unpack

from safety_harness.ddmin.ahead import look_ahead
from safety_harness.ddmin.arguments import (
    check_answer,
    check_score,
    check_units,
    known_answers,
    ordered,
)
from safety_harness.ddmin.course import Course
from safety_harness.ddmin.errors import not_reproduced
from safety_harness.ddmin.evidence import ranks
from safety_harness.ddmin.journal import Journal
from safety_harness.ddmin.noise import NoisyCourse
from safety_harness.ddmin.options import OptionArguments, Options
from safety_harness.ddmin.sprt import Scores
from safety_harness.ddmin.strategies import choose
from safety_harness.ddmin.types import Answer, Event, EventKind, Question, Reduction, Reply, Stop, T
from safety_harness.ddmin.waiting import Waiting

_BITS = bytes.maketrans(b"01", b"\x00\x01")  # digits to flags: `_subset` selects units at the speed of C


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """A question to the oracle: is this set of units enough? `units` are in original order."""

    units: tuple[T, ...]
    question: Question


class Reducer(Generic[T]):
    """A reduction whose caller puts the questions to the oracle and tells the answers.

        reducer = Reducer(units)
        while (ask := reducer.ask()) is not None:
            reducer.tell(ask, oracle(ask.units))
        reducer.result().kept

    It takes the options of `minimize` (`Options` explains them) and raises what `minimize` raises for them. One thread
    must ask and tell; the answers may be worked out anywhere.
    """

    def __init__(self, units: Sequence[T], **options: Unpack[OptionArguments[T]]) -> None:
        self._started = time.monotonic()
        self._options = chosen = Options(**options)
        self._units = check_units(units)
        self._order = order = ordered(self._units, chosen.weights)
        self._in_order = order == tuple(range(len(order)))
        self._ranked = tuple(self._units[i] for i in order)
        self._assumed = known_answers({unit: rank for rank, unit in enumerate(self._ranked)}, chosen.assume)
        self._course: Course | NoisyCourse = self._begin_course()
        self._waiting = Waiting(repeats=chosen.noise is not None)
        self._journal = self._open_journal()
        self._history: list[tuple[int, int]] = []
        self._calls = self._cached = self._replayed = 0
        self._open: Ask[T] | None = None
        self._stopped: Stop | None = None
        self._emit("phase", 0)

    def ask(self) -> Ask[T] | None:
        """Return the next question, unchanged until its answer is told; None when the reduction has ended.

        Raises NotReproduced when the full set was not accepted.
        """
        self._go_on()
        return self._open

    def ask_many(self, wanted: int) -> list[Ask[T]]:
        """Return up to `wanted` distinct questions: the next one, and those most likely to follow it.

        Answers to the later questions may be told at once. They count, as calls and as evidence, when their turn comes.
        """
        first = self.ask()
        if first is None:
            return []
        rest = look_ahead(self._course, self._known, wanted) if wanted > 1 else []
        return [first, *(Ask(self._subset(q), q) for q in rest if q != first.question)][:wanted]

    def tell(self, ask: Ask[T], answer: Reply) -> None:
        """Take the oracle's answer, or its score; Answer.UNRESOLVED if it has none.

        An answer to a question that is not the current one is kept until it is needed. Raises BadAnswer for anything
        that is neither answer nor score. Raises JournalError if the answer could not be written down; it counts
        nevertheless.
        """
        check = check_score if isinstance(self._options.noise, Scores) else check_answer
        answer = check(answer, len(ask.units))
        # Of an oracle that does not err, a second answer is no news; otherwise it is a new measurement.
        settled = self._options.noise is None and ask.question in self._course.record.answers
        if settled or not self._waiting.put(ask.question, answer):
            return
        try:
            if self._journal is not None:
                self._journal.append(self._by_position(ask.question), answer)
        finally:
            self._go_on()  # what the journal could not take still counts

    def close(self) -> None:
        """Close the journal. Nothing can be told after that."""
        if self._journal is not None:
            self._journal.close()

    def stop(self, reason: Stop) -> None:
        """End the reduction here. `result` then gives the best set so far."""
        self._stopped = self._stopped or reason
        self._open = None

    @property
    def has_result(self) -> bool:
        """Whether a set has been accepted yet."""
        return self._course.best is not None

    def result(self) -> Reduction[T]:
        """Return the result as it stands, before the end as well. Raises ValueError before a set was accepted."""
        best = self._course.best
        if best is None:
            raise ValueError("no set has been accepted yet")
        evidence = self._course.record.of(best)
        certificate = {self._ranked[rank]: seen for rank, seen in evidence.items()}
        kept = self._subset(best)
        return Reduction(
            kept=kept,
            removed=tuple(unit for unit in self._units if unit not in certificate),
            minimal=all(seen == "tested" for seen in certificate.values()),
            certificate={unit: certificate[unit] for unit in kept},
            monotone=self._course.record.monotone,
            calls=self._calls,
            cached=self._cached,
            replayed=self._replayed,
            repeats=self._course.repeats,
            disagreements=self._course.disagreements,
            frozen=self._course.frozen,
            speculated=self._waiting.count(),
            seconds=time.monotonic() - self._started,
            stopped=self._stopped,
            history=tuple(self._history),
        )

    def _begin_course(self) -> Course | NoisyCourse:
        """Return the reduction as a state: for an oracle that errs, one that asks some questions again."""
        options = self._options
        full = (1 << len(self._units)) - 1
        make = choose(options.strategy, None if options.weights is None else self._order)
        course = Course(full, make, options.certificate, check_empty=options.check_empty)
        if options.noise is None:
            return course
        confident = options.certificate == "confidence"
        return NoisyCourse(course, options.noise, frozenset(self._assumed), confident=confident)

    def _open_journal(self) -> Journal | None:
        """Open the journal, if there is to be one, and keep its answers until their questions come."""
        options = self._options
        if options.journal is None:
            return None
        journal = Journal(options.journal, options.fingerprint, self._units, scores=isinstance(options.noise, Scores))
        # The file's masks are over positions, so that it stays valid under other weights, hence other ranks.
        rank_of = {position: rank for rank, position in enumerate(self._order)}
        self._waiting.replay(
            (sum(1 << rank_of[position] for position in ranks(mask)), answer) for mask, answer in journal.answers
        )
        return journal

    def _go_on(self) -> None:
        """Use all answers at hand, up to a question that the caller must answer."""
        while self._stopped is None and (question := self._course.question()) is not None:
            answer = self._free(question)
            if answer is not None:
                self._cached += 1
                self._fold(answer)
                continue
            early = self._waiting.next(question)
            if not self._begun(question, quietly=early is not None and early.replayed) or early is None:
                return
            self._waiting.take(question)
            asked, self._open = self._open, None
            if early.replayed:
                self._replayed += 1
            else:
                self._emit("answered", question.bit_count(), self._plain(early.answer), asked)
            self._fold(early.answer)
        self._open = None

    def _free(self, question: Question) -> Answer | None:
        """Return the answer if it costs no call: assumed, or given before by an oracle that does not err."""
        if question in self._assumed:
            return self._assumed[question]
        return None if self._options.noise is not None else self._course.record.answers.get(question)

    def _begun(self, question: Question, *, quietly: bool) -> bool:
        """Make the question the open one, within the budget. Return False when the budget has ended the reduction."""
        if self._open is not None and self._open.question == question:
            return True
        reason = self._over_budget()
        if reason is not None:
            self.stop(reason)
            return False
        self._calls += 1
        self._open = Ask(self._subset(question), question)
        if not quietly:
            self._emit("asked", question.bit_count(), ask=self._open)
        return True

    def _over_budget(self) -> Stop | None:
        """Return which budget is spent; None while all allow another call."""
        if self._options.max_calls is not None and self._calls >= self._options.max_calls:
            return "calls"
        if self._options.max_seconds is None or self._course.best is None:
            return None  # the full set is asked whatever the clock says: without its answer nothing can be returned
        return "seconds" if time.monotonic() - self._started >= self._options.max_seconds else None

    def _plain(self, reply: Reply) -> bool | None:
        """Return a reply as an event reports it: a score counts as True from the threshold on."""
        if reply is Answer.UNRESOLVED:
            return None
        return reply is Answer.TRUE if self._options.noise is None else self._options.noise.plain(reply) is Answer.TRUE

    def _fold(self, answer: Reply) -> None:
        """Give the course an answer, and emit what changed. Raises NotReproduced if the full set was not accepted."""
        course = self._course
        phase, best, monotone = course.phase, course.best, course.record.monotone
        if isinstance(course, NoisyCourse):
            course.tell(answer)
        else:
            course.tell(check_answer(answer, len(self._units)))
        if course.refused is not None:
            raise not_reproduced(course.refused, len(self._units))
        # Of an oracle that errs, `best` changes only once an accepted set is confirmed, perhaps answers later.
        if course.best is not None and course.best != best:
            size = course.best.bit_count()
            self._history.append((self._calls, size))
            self._emit("accepted", size)
            if self._options.target_size is not None and size <= self._options.target_size:
                self.stop("size")
        if monotone and not course.record.monotone:
            self._emit("distrusted", (course.best or 0).bit_count())
        if course.phase != phase:
            self._emit("phase", (course.best or 0).bit_count())

    def _known(self, question: Question) -> Reply | None:
        """Return the answer that the question would get without a call."""
        early = self._waiting.next(question)
        return self._free(question) if early is None else early.answer

    def _by_position(self, question: Question) -> int:
        """Return the set as a bit mask over original positions, as the journal keeps it."""
        return question if self._in_order else sum(1 << self._order[rank] for rank in ranks(question))

    def _subset(self, question: Question) -> tuple[T, ...]:
        """Return the units of a set in original order."""
        chosen = bin(question)[:1:-1].encode().translate(_BITS)  # one byte per rank, 0 or 1
        if self._in_order:
            return tuple(compress(self._units, chosen))
        return tuple(self._units[i] for i in sorted(compress(self._order, chosen)))

    def _emit(self, kind: EventKind, size: int, answer: bool | None = None, ask: Ask[T] | None = None) -> None:
        """Report one step to the listener, if there is one."""
        if self._options.on_event is not None:
            course = self._course
            best = 0 if course.best is None else course.best.bit_count()
            units = ask.units if ask else ()
            calls, left = self._calls, course.remaining()
            self._options.on_event(Event(kind, course.phase, size, calls, answer, best, left, units))
