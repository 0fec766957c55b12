"""Guess the questions that a search will ask next, so that several workers have something to do."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol, Self

from safety_harness.ddmin.types import Answer, Question, Reply

# States visited per question wanted. States whose answer is known yield no question, so more states than questions
# must be visited; the limit keeps a long chain of known answers from holding up the next call.
_PATIENCE = 16
# A forecast that is nearly sure may still be wrong, so either answer keeps a chance to be looked into.
_LEAST_CHANCE = 0.01


class Foreseeable(Protocol):
    """A state that gives its next question, takes answers, forecasts them, and can be copied."""

    def question(self) -> Question | None: ...
    def tell(self, answer: Any) -> None: ...
    def fork(self) -> Self: ...
    def chance(self) -> float: ...


def look_ahead(state: Foreseeable, known: Callable[[Question], Reply | None], wanted: int) -> list[Question]:
    """Return up to `wanted` unanswered questions: the next one first, then those most likely to be asked.

    Both answers to each question are followed, the likeliest path first. `known` gives the answers already there.
    """
    order = count()
    # Python's heap pops the smallest, so probabilities stand negated. The number breaks ties: states do not compare.
    heap = [(-1.0, next(order), state.fork())]
    questions: dict[Question, None] = {}  # a dict keeps the order and drops repeats
    patience = _PATIENCE * wanted
    while heap and len(questions) < wanted and patience > 0:
        patience -= 1
        path, _, at = heapq.heappop(heap)
        question = at.question()
        if question is None:
            continue
        answer = known(question)
        if answer is not None:
            at.tell(answer)
            heapq.heappush(heap, (path, next(order), at))
            continue
        questions[question] = None
        chance = min(max(at.chance(), _LEAST_CHANCE), 1 - _LEAST_CHANCE)
        accepted, refused = at, at.fork()
        accepted.tell(Answer.TRUE)
        refused.tell(Answer.FALSE)
        heapq.heappush(heap, (path * chance, next(order), accepted))
        heapq.heappush(heap, (path * (1 - chance), next(order), refused))
    return list(questions)
