"""Which rows may share a pass: lengths at which a model treats a token by more than its own row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from safety_harness.conversation import Asked, Conversation, asked_text
from safety_harness.errors import DataError


def padding_limit(config: Any) -> int | None:
    """Return the longest sequence for which padding inside the cache is harmless, or None if it always is.

    A sliding window counts columns, padding included. The attention biases of MPT do so at any length. Other models
    are given the positions of their tokens.
    """
    if config.model_type == "mpt":
        return 0
    return int(getattr(config, "sliding_window", None) or 0) or None


def shared_beginning(rows: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all *rows* (at least one) begin with."""
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return sum(1 for _ in alike)


def rotary_switch(config: Any) -> int | None:
    """Return the length beyond which a model of this config rotates all of a pass by other frequencies, or None.

    These are models with longrope, such as Phi-3. The longest row of a pass decides for every row in it. (The dynamic
    kind changes beyond the model's context, which no row exceeds.)
    """
    rotary = getattr(config, "rope_parameters", None) or {}
    kinds = [rotary, *(kind for kind in rotary.values() if isinstance(kind, Mapping))]
    switches = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    return int(min(switches)) if switches else None


def crosses(length: int, new: int, switch: int | None) -> bool:
    """Return whether a row of *length* tokens reaches beyond *switch* while *new* tokens are generated."""
    # The last token that is generated is not read.
    return switch is not None and length <= switch < length + new - 1


def rows_together(lengths: Sequence[int], new: int, switch: int | None) -> int:
    """Return how many of the first rows may share a batch: those on one side of *switch*, or one row that crosses it.

    Args:
        lengths: the tokens of each row (at least one), shortest first.
        new: how many tokens are generated.
    """
    if switch is None:
        return len(lengths)
    if crosses(lengths[0], new, switch):
        return 1
    beyond = lengths[0] > switch
    return sum(1 for length in lengths if (length > switch) == beyond and not crosses(length, new, switch))


def sides(rows: Sequence[Sequence[int]], switch: int | None) -> Iterator[list[int]]:
    """Yield the places of the *rows* up to *switch*, and of the rows beyond it, if there are any."""
    for beyond in (False, True):
        places = [at for at, row in enumerate(rows) if (switch is not None and len(row) > switch) == beyond]
        if places:
            yield places


def require_room(asked: Asked, tokens: int, new: int, context: int) -> None:
    """Check that *tokens* of what is asked and *new* ones of its answer fit a model's *context*, if it has one.

    Raises:
        DataError: they do not fit.
    """
    if not context or tokens + new <= context:
        return
    what, advice = f"A question of {tokens} tokens", "Shorten or remove it."
    if isinstance(asked, Conversation) and (asked.attack or asked.plain is None):
        what, advice = (
            f"{asked.name}: its conversation of {tokens} tokens",
            "Shorten the question, or leave the attack out.",
        )
    raise DataError(
        f"{what} and {new} for its answer exceed the model's context of {context}: {asked_text(asked)[:60]!r} … "
        f"{advice}"
    )
