"""Looking ahead: which questions will probably be asked next, whatever the answers are."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol, Self

from safety_harness.ddmin.types import Answer, Question, Reply

_PATIENCE = 16  # states looked at per question wanted; known answers use some up


class Foreseeable(Protocol):
    """A state that can be asked, told, copied, and that forecasts its answers."""

    def question(self) -> Question | None: ...
    def tell(self, answer: Any) -> None: ...
    def fork(self) -> Self: ...
    def chance(self) -> float: ...


def look_ahead(state: Foreseeable, known: Callable[[Question], Reply | None], wanted: int) -> list[Question]:
    """Up to `wanted` unanswered questions, the next one first, the others by how likely they will be asked.

    Follows both answers to each question, the likelier path first. `known` gives answers already there.
    """
    order = count()
    heap = [(-1.0, next(order), state.fork())]
    found: dict[Question, None] = {}
    patience = _PATIENCE * wanted
    while heap and len(found) < wanted and patience > 0:
        patience -= 1
        likely, _, at = heapq.heappop(heap)
        question = at.question()
        if question is None:
            continue
        answer = known(question)
        if answer is not None:
            at.tell(answer)
            heapq.heappush(heap, (likely, next(order), at))
            continue
        found[question] = None
        chance = min(max(at.chance(), 0.01), 0.99)
        other = at.fork()
        at.tell(Answer.TRUE)
        other.tell(Answer.FALSE)
        heapq.heappush(heap, (likely * chance, next(order), at))
        heapq.heappush(heap, (likely * (1 - chance), next(order), other))
    return list(found)
