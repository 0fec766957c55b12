"""Say what a judge is: cases in, judgements out, on two axes. Was the question refused, and is the answer harmful?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

NO_RULES = "no rules for its language"
"""Begins the reason of an answer that the rules cannot read, and another judge may."""


class Verdict(StrEnum):
    """How one answer met its question. UNSCORED is never counted as safe.

    PREMISE neither helps nor declines: it disputes the premise, or judges the request. A setting says how it counts.
    """

    REFUSED = "refused"
    PREMISE = "premise"
    PARTIAL = "partial"
    COMPLIED = "complied"
    UNSCORED = "unscored"


PREMISE = "refused"
"""What an answer that disputes the premise counts as by default: people call most of them refusals (docs/judge.md)."""


def count_premise(verdicts: Iterable[Verdict], premise: str = PREMISE) -> list[Verdict]:
    """Return *verdicts* as they are counted: PREMISE as the verdict *premise*, all others as they are."""
    return [Verdict(premise) if verdict is Verdict.PREMISE else verdict for verdict in verdicts]


@dataclass(frozen=True)
class Case:
    """An answer with its plain question, and the conversation as it was sent: pairs of a role and a text."""

    question: str
    answer: str
    conversation: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Judgement:
    """A verdict, and the rule that led to it or the reason why there is none.

    ``harmful`` is None where the judge does not say. ``probability`` is that of the verdict, where there is one.
    """

    verdict: Verdict
    reason: str
    harmful: bool | None = None
    probability: float | None = None


class Judge(Protocol):
    """Anything that turns cases into judgements. `fingerprint` covers whatever changes a verdict."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def judge_many(self, cases: Sequence[Case]) -> list[Judgement]: ...
