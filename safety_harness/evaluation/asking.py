"""Collect all that a gate asks of a student, before it is asked, and count what that takes of a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from safety_harness.conversation import Asked, Asking, Decoding, as_sent
from safety_harness.evaluation.attacks import asked_under_attack
from safety_harness.registry.load import Student
from safety_harness.registry.prompts import PromptSet
from safety_harness.registry.server import Served
from safety_harness.registry.splits import StudentSplits, further_questions

# Questions that are asked twice before all others and again after them, to see whether answers stay the same.
SAMPLE = 4


def sets_asked(student: Student, questions: StudentSplits) -> list[tuple[PromptSet, Decoding | None]]:
    """Return each set that the gate asks of *student* and the decoding of its answers: None for the family's way.

    Raises:
        DataError, SourceError: a further set is missing or wrong.
    """
    sets = (*questions.reported, *further_questions(student.family, questions).values())
    return [*((prompts, None) for prompts in sets), *asked_under_attack(student, questions)]


def all_asked(student: Student, questions: StudentSplits) -> list[Asking]:
    """Return all that the gate asks of *student*, each once, in order.

    Raises:
        DataError, SourceError: a further set is missing or wrong.
    """
    every = [one for prompts, how in sets_asked(student, questions) for one in askings(student, prompts, how)]
    return list({one.key: one for one in every}.values())


def askings(student: Student, prompts: PromptSet, decoding: Decoding | None) -> list[Asking]:
    """Return what is asked for each of *prompts*, in order. The family's way of decoding has one form, None.

    No server shows its tokens one by one, so none breaks an answer off.
    """
    how = decoding and replace(decoding, screen=None).other_than(student.family.max_new_tokens)
    return [Asking(as_sent(sent), how) for sent in prompts.sent]


def sample_of(asked: Sequence[Asking], size: int) -> list[Asking]:
    """Return *size* of those whose answers should repeat: plain questions, or where there are none, greedy answers."""
    some = [one for one in asked if one.plain] or [one for one in asked if one.greedy]
    return some[:: max(1, len(some) // size)][:size]


@dataclass(frozen=True)
class Budget:
    """What a run may send to a server for its ``questions``: ``requests``, or with every attempt ``at_most``."""

    questions: int
    requests: int
    at_most: int
    tokens: int
    characters: int

    @property
    def sentence(self) -> str:
        """The budget as it is announced."""
        return (
            f"{self.requests:,} requests, {self.at_most:,} at most where answers are lost; these send "
            f"{self.characters:,} characters and may generate {self.tokens:,} tokens"
        )


def budget(student: Student, server: Served, asked: Sequence[Asking]) -> Budget:
    """Return what asking *server* all that is *asked* of *student* takes at most.

    Raises:
        ConfigError: the server does not take one of them.
    """
    for one in asked:
        server.require(one.asked, one.decoding)
    every = [*asked, *2 * sample_of(asked, SAMPLE)]
    attempts = 1 + server.retries
    requests = 1 + len(every)  # the first is for what the server says about the model
    own = student.family.max_new_tokens
    tokens = sum(server.most_tokens(own, one.decoding) for one in every)
    characters = sum(_characters(one.asked) for one in every)
    at_most = 1 + attempts * len(every)
    return Budget(len(asked), requests, at_most, attempts * tokens, attempts * characters)


def _characters(asked: Asked) -> int:
    """Return how many characters of all turns are sent, and of the beginning of the answer."""
    if isinstance(asked, str):
        return len(asked)
    return sum(len(text) for _, text in asked.pairs) + len(asked.prefill)
