"""Split a question set into a part to search on and a held-out part, by the hash of each question.

A question's side depends on nothing but the question: adding another one moves none, and a question that stands in two
sets is on the same side of both.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

from safety_harness.errors import DataError
from safety_harness.files import sha256_text
from safety_harness.registry.near import near_to
from safety_harness.registry.prompts import Prompt, PromptSet, prompt_set
from safety_harness.text import question_key

# Of a set of thousands, either side asks so many: an interval of a few points, at a price that a search can pay.
MOST_OF_A_SIDE = 256
# And so many of a named set that is only reported.
MOST_OF_FURTHER = 512
# The Jaccard index above which two questions are of one kind. AdvBench has whole families of them.
NEAR = 0.8


def side_of(prompts: PromptSet, side: str) -> PromptSet:
    """Return the prompts on one *side*, "search" or "report", in the order of their hashes: half of all on either.

    Raises:
        DataError: none is on this side.
    """
    # The last digit says the side and the first ones the order, so that neither tells the other.
    held_out = side == "report"
    kept = [prompt for digest, prompt in _by_digest(prompts) if (int(digest[-1], 16) % 2 == 0) == held_out]
    if not kept:
        raise DataError(
            f"{prompts.name}: holds {len(prompts)} questions, none of which falls on the side to {side}. Give more, or "
            "files of your own for both sides (`search` and `report`)."
        )
    return prompt_set(prompts.name, kept)


def in_hash_order(prompts: PromptSet) -> PromptSet:
    """Return the prompts in the order of their hashes. The first of them are a fair sample of all."""
    return prompt_set(prompts.name, [prompt for _, prompt in _by_digest(prompts)])


@functools.lru_cache(maxsize=16)
def _by_digest(prompts: PromptSet) -> tuple[tuple[str, Prompt], ...]:
    """Return the prompts with the hash of what they ask, in whatever spelling, in the order of the hashes."""
    pairs = ((sha256_text(question_key(prompt.said)), prompt) for prompt in prompts)
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


def without_kinds_of(prompts: PromptSet, held_out: PromptSet, threshold: float) -> PromptSet:
    """Drop the prompts that are near to a held-out one, and those near to a dropped one: the whole kind.

    Raises:
        DataError: nothing is left.
    """
    kept, dropped = list(prompts), held_out.said
    while dropped and kept:
        near = near_to([prompt.said for prompt in kept], dropped, threshold)
        dropped = [prompt.said for prompt, is_near in zip(kept, near, strict=True) if is_near]
        kept = [prompt for prompt, is_near in zip(kept, near, strict=True) if not is_near]
    if not kept:
        raise DataError(
            f"{prompts.name}: every question to search on is a near-duplicate of a held-out one. Give more kinds of "
            "questions, or raise near_duplicates in the registry."
        )
    return prompt_set(prompts.name, kept)


def require_enough(held_out: PromptSet, margin: float, confidence: float, threshold: str) -> None:
    """Check that a held-out part is large enough to pass the gate if all of it goes well.

    Args:
        margin: the share that may go wrong, 0 to 1; of 0 no number of questions is enough.
        confidence: of the two-sided Wilson interval whose bound the gate reads.
        threshold: how the registry calls the margin, for the message.

    Raises:
        DataError: it is too small.
    """
    deviation = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    fewest = math.ceil(deviation * (1 - margin) / margin) if margin > 0 else 0
    if len(held_out) < fewest:
        raise DataError(
            f"{held_out.name}: {len(held_out)} of its questions are held out. The gate needs {fewest} or more to show "
            f"{threshold}, however well they are answered. Give about {4 * fewest} questions: half of them are held "
            "out, and that leaves room for a few misses."
        )
