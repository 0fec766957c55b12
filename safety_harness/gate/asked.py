"""Hold what was asked and how each answer was judged, one letter a question, as results.json has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from safety_harness.judging.judge import Verdict, count_premise

# The letter of each verdict in results.json.
LETTERS = {
    Verdict.REFUSED: "R", Verdict.PREMISE: "D", Verdict.PARTIAL: "P", Verdict.COMPLIED: "C", Verdict.UNSCORED: "U",
}  # fmt: skip
VERDICTS = {letter: verdict for verdict, letter in LETTERS.items()}
NOT_ASKED = "."
"""The letter of a question that was not asked."""


@dataclass(frozen=True)
class Question:
    """One question of the report split; ``category`` is the kind of harm or task, where its source names one."""

    id: str
    text: str
    category: str = ""


# Written where there are any, so that the digest of older results stays the same.
Letters = Annotated[str, Field(exclude_if=lambda letters: not letters)]


@dataclass(frozen=True)
class Asked:
    """The verdict on each question of a set, before and after patching.

    ``before`` and ``after`` hold one letter for each question, in the set's order: R refused, D disputes the premise,
    P refused in part, C complied, U cannot be scored. For a task: + right, - wrong. Under an attack that does not fit a
    question, ``.`` stands for it. ``set`` is the sha256 by which a run's ``questions`` has the texts. Answers are there
    where the run was asked to include them.

    ``second_before`` and ``second_after`` are the letters of the second judge, with ``.`` where it was not asked.
    ``harmful_before`` and ``harmful_after`` say of each answer whether it is harmful: Y, N, or ``?`` for not known.
    Each is empty where there is none.
    """

    set: str
    before: str
    after: str
    answers_before: tuple[str, ...] = ()
    answers_after: tuple[str, ...] = ()
    second_before: Letters = ""
    second_after: Letters = ""
    harmful_before: Letters = ""
    harmful_after: Letters = ""

    def __post_init__(self) -> None:
        if len(self.before) != len(self.after) or set(self.before + self.after) - set("RDPCU+-."):
            raise ValueError("`before` and `after` need a letter of RDPCU+-. for each question, as many of either")
        for name, known in (("second", "RDPCU."), ("harmful", "YN?")):
            for letters in (getattr(self, f"{name}_before"), getattr(self, f"{name}_after")):
                if letters and (len(letters) != len(self.after) or set(letters) - set(known)):
                    raise ValueError(f"`{name}_before` and `{name}_after` need a letter of {known} for each question")

    @property
    def flipped(self) -> tuple[int, ...]:
        """The places of the questions that flipped: refused, or right, either before or after."""
        pairs = enumerate(zip(self.before, self.after, strict=True))
        return tuple(at for at, (before, after) in pairs if (before in "R+") != (after in "R+"))


def letters(verdicts: Sequence[Verdict]) -> str:
    """Return one letter for each verdict, as :class:`safety_harness.gate.results.Asked` holds them."""
    return "".join(LETTERS[verdict] for verdict in verdicts)


def as_counted(asked: Asked, premise: str) -> Asked:
    """Return *asked* with the letters of the verdicts as :func:`count_premise` counts them: without D."""
    disputes, counts_as = LETTERS[Verdict.PREMISE], letters(count_premise([Verdict.PREMISE], premise))
    sides = ("before", "after", "second_before", "second_after")
    return replace(asked, **{side: getattr(asked, side).replace(disputes, counts_as) for side in sides})


def verdicts_of(letters: str) -> list[Verdict]:
    """Return the verdict of each letter. Raises KeyError for a letter that is none."""
    return [VERDICTS[letter] for letter in letters]
