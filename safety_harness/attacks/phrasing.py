"""Take a question apart by rule: what it asks to be done, and what it asks for.

The rules know imperatives ("Write a poem") and questions for a way ("How do I bake bread?"). Whatever else is a misfit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

from safety_harness.attacks.attack import Misfit

_SENTENCE_ENDS = re.compile(r"[.!?;]\s")
_PLEASE = re.compile(r"\Aplease,?\s+", re.IGNORECASE)
_HOW = re.compile(
    r"(?:on\s+)?how\s+(?:to|(?:do|can|could|would|should|might)\s+(?:i|you|we|one|people|someone))\s+(?P<way>.+)",
    re.IGNORECASE,
)


class Phrasing:
    """The two rules, with the words that they know.

    Args:
        words: `making`, `telling` and `other` verbs, `whom` an imperative may name, and what `objects` begin with.
    """

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        self._making = frozenset(words["making"])
        self._telling = frozenset(words["telling"])
        self._verbs = self._making | self._telling | frozenset(words["other"])
        self._whom = frozenset(words["whom"])
        self._objects = frozenset(words["objects"])

    def verb_phrase(self, question: str, _random: Random) -> str | Misfit:
        """Return what *question* asks to be done, as "bake bread" of "How do I bake bread?"."""
        text = _sentence(question)
        if isinstance(text, Misfit):
            return text
        if way := self._way(text):
            return way
        verb, rest = self._imperative(text)
        if verb not in self._verbs:
            return Misfit("it is neither an imperative with a verb that the rule knows nor a question for a way")
        return f"{verb} {rest}" if rest else Misfit("nothing follows its verb")

    def object(self, question: str) -> str | Misfit:
        """Return what *question* asks for, as "a poem" of "Write a poem." or "how to bake" of "How do I bake?"."""
        text = _sentence(question)
        if isinstance(text, Misfit):
            return text
        if way := self._way(text):
            return f"how to {way}"
        verb, rest = self._imperative(text)
        if verb in self._making and rest.split(" ")[0].lower() in self._objects:
            return rest
        return Misfit("the rule finds no object in it")

    def _way(self, text: str) -> str:
        """Return what is to be done in a question for a way, or an empty string."""
        verb, rest = self._imperative(text)
        found = _HOW.fullmatch(text) or (verb in self._telling and _HOW.fullmatch(rest))
        return found["way"] if found else ""

    def _imperative(self, text: str) -> tuple[str, str]:
        """Return the first word of *text* in lower case, and the rest without the person whom it names."""
        verb, _, rest = text.partition(" ")
        whom, _, behind = rest.partition(" ")
        return verb.lower(), behind if whom.lower() in self._whom else rest


def _sentence(question: str) -> str | Misfit:
    """Return a question of one sentence on one line, without its final punctuation and "please"."""
    text = _PLEASE.sub("", " ".join(question.split()).rstrip(".!?… "), count=1)
    return Misfit("it has more than one sentence") if _SENTENCE_ENDS.search(text) else text
