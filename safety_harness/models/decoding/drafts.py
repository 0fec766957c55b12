"""Draft tokens for speculative decoding: what the same question was answered before.

A wrong draft costs the arithmetic of a few tokens, and changes nothing: the generator keeps only those tokens that the
model chooses itself. A search asks the same questions of models that differ in a few units, so most answers repeat an
earlier one. One pass over a known answer then replaces one pass for each of its tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

# A search rarely brings out more than a few different answers to one question.
KEPT_ANSWERS_PER_QUESTION = 8

# Longer drafts are more often wrong, and every token of a draft takes a column of the cache in all rows.
MAX_DRAFT_TOKENS = 16


class Drafts:
    """The last answers to each question, newest first. Questions and answers are token ids."""

    def __init__(self) -> None:
        self._answers: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def draft(self, question: Sequence[int], answer_so_far: Sequence[int], most: int) -> tuple[int, ...]:
        """Return up to *most* tokens that followed *answer_so_far* in the newest answer that begins with it, or ()."""
        begun = tuple(answer_so_far)
        for answer in self._answers.get(tuple(question), ()):
            if len(answer) > len(begun) and answer[: len(begun)] == begun:
                return answer[len(begun) : len(begun) + most]
        return ()

    def draft_each(
        self, keys: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], most: int, max_new_tokens: int
    ) -> list[tuple[int, ...]]:
        """Return a draft for each row of up to *most* tokens, cut to the length that at least half of the drafts reach.

        Longer drafts would only pad the rows of shorter ones.
        """
        drafts = [
            self.draft(key, answer, min(most, max_new_tokens - len(answer) - 1))
            for key, answer in zip(keys, answers, strict=True)
        ]
        median_length = sorted(map(len, drafts), reverse=True)[(len(drafts) - 1) // 2]
        return [draft[:median_length] for draft in drafts]

    def remember(self, question: Sequence[int], answer: Sequence[int]) -> None:
        """Keep *answer* as the newest answer to *question*."""
        newest = tuple(answer)
        answers = self._answers.setdefault(tuple(question), [])
        if newest in answers:
            answers.remove(newest)
        answers.insert(0, newest)
        del answers[KEPT_ANSWERS_PER_QUESTION:]


def accepted(draft: Sequence[int], chosen: Sequence[int]) -> int:
    """Return how many tokens of *draft*, from its first on, the model chose itself."""
    pairs = zip(draft, chosen, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
