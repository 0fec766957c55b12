"""Say what is sent to a model: turns of a conversation, and the first words of its answer."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import astuple, dataclass, field, replace
from typing import Literal, Self, get_args

from safety_harness.errors import DataError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation says."""

    role: Role
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns up to the one that a model answers, and the *prefill* that its answer begins with.

    Conversations are equal if they send the same. *attack* only names, in errors, what made this one.

    Raises:
        DataError: the turns cannot be sent. A system turn comes first, user and assistant take turns, and the user has
            the last word. No turn is blank. A prefill has no white space at its ends.
    """

    turns: tuple[Turn, ...]
    prefill: str = ""
    attack: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if fault := self._fault():
            raise DataError(f"{self.name} {fault}. Correct its template, or what makes it.")

    def _fault(self) -> str:
        """Return what is wrong with the turns, or an empty string."""
        if unknown := [turn.role for turn in self.turns if turn.role not in get_args(Role)]:
            return f"has a turn of {unknown[0]!r}, and roles are {', '.join(get_args(Role))}"
        if blank := [turn.role for turn in self.turns if not turn.text.strip()]:
            return f"has a blank {blank[0]} turn"
        spoken = [turn.role for turn in self.turns[1 if self.system else 0 :]]
        if "system" in spoken:
            return "has a system turn that is not its first"
        if spoken[::2] != ["user"] * len(spoken[::2]) or spoken[1::2] != ["assistant"] * len(spoken[1::2]):
            return "has turns of user and assistant that do not alternate, with a user's first"
        if not spoken or spoken[-1] != "user":
            return "does not end with a user's turn"
        if self.prefill != self.prefill.strip():
            return f"has a prefill with white space at its ends, {self.prefill!r}, which chat templates may strip"
        return ""

    @classmethod
    def of(cls, question: str) -> Self:
        """Return the conversation that asks a plain *question*."""
        return cls((Turn("user", question),))

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"The attack {self.attack!r}" if self.attack else "A conversation"

    @property
    def plain(self) -> str | None:
        """The question, where it is all that is sent."""
        return self.turns[0].text if len(self.turns) == 1 and not self.prefill else None

    @property
    def system(self) -> str:
        """The text of the system turn, or an empty string."""
        return self.turns[0].text if self.turns and self.turns[0].role == "system" else ""

    @property
    def sha256(self) -> str:
        """The digest of what is sent: roles and texts in order, and the prefill."""
        return hashlib.sha256(json.dumps([self.pairs, self.prefill]).encode()).hexdigest()

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Role and text of each turn, as a judge's case holds them."""
        return tuple((turn.role, turn.text) for turn in self.turns)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns, as chat templates and servers take them."""
        return [{"role": role, "content": text} for role, text in self.pairs]

    def without_system(self) -> Conversation:
        """Return a conversation whose system turn stands at the beginning of the user's first turn."""
        if not self.system:
            return self
        first = Turn("user", f"{self.system}\n\n{self.turns[1].text}")
        return Conversation((first, *self.turns[2:]), self.prefill, self.attack)


Asked = str | Conversation
"""What a model may be asked: a plain question, or a conversation."""


def digest_of(asked: Asked) -> str:
    """Return the digest of what is sent, by which answers are kept."""
    asked = as_sent(asked)
    return hashlib.sha256(asked.encode()).hexdigest() if isinstance(asked, str) else asked.sha256


def as_sent(asked: Asked) -> Asked:
    """Return the question of a conversation that sends nothing else, and what is asked otherwise."""
    return asked if isinstance(asked, str) else asked.plain or asked


def asked_text(asked: Asked) -> str:
    """Return what the user says last."""
    return asked if isinstance(asked, str) else asked.turns[-1].text


@dataclass(frozen=True)
class Decoding:
    """How an answer is generated: of at most *tokens* tokens, greedily or at random at a *temperature*.

    *draw* tells the answers apart that are drawn to one question. Each has a seed of its own, by what is asked. After
    *screen* tokens an answer that complies is broken off, where its tokens are seen as they come: it cannot become a
    refusal. None generates every answer to its end.

    Raises:
        ValueError: the temperature is negative or no number, or the draw is negative.
    """

    tokens: int
    temperature: float = 0.0
    draw: int = 0
    screen: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"a temperature of {self.temperature} is none: it is 0, or a number above it")
        if self.draw < 0:
            raise ValueError(f"a draw of {self.draw} is none: they are counted from 0")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest tokens are taken, whatever the draw."""
        return self.temperature == 0

    def other_than(self, tokens: int) -> Decoding | None:
        """Return None if this is the greedy way of *tokens* tokens, and else this; a greedy answer has one draw."""
        if not self.greedy:
            return self
        return None if (self.tokens, self.screen) == (tokens, None) else replace(self, draw=0)

    def seed(self, asked: Asked) -> int:
        """Return the seed of the answer to *asked*: 64 bits, equal on any machine."""
        return int.from_bytes(hashlib.sha256(f"{self.draw} {digest_of(asked)}".encode()).digest()[:8], "big")


@dataclass(frozen=True)
class Asking:
    """What is asked once, and how its answer is generated: None for the way of the student's family."""

    asked: Asked
    decoding: Decoding | None = None

    @property
    def key(self) -> str:
        """The digest by which the answer is kept. A question that is put in the family's way has its own digest."""
        digest = digest_of(self.asked)
        if self.decoding is None:
            return digest
        return hashlib.sha256(json.dumps([digest, *astuple(self.decoding)]).encode()).hexdigest()

    @property
    def plain(self) -> bool:
        """Whether a question alone is sent, and answered in the family's way."""
        return self.decoding is None and isinstance(as_sent(self.asked), str)

    @property
    def greedy(self) -> bool:
        """Whether the answer has the likeliest tokens."""
        return self.decoding is None or self.decoding.greedy
