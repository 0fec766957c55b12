"""Know the tokens of a model: those it has rows for, those that end an answer, and a tokenizer that cuts or pads."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from safety_harness.errors import SourceError, remark

# How many tokens a message names.
NAMED = 5


def rows_of(model: Any) -> int:
    """Return how many tokens have a row among the embeddings of *model*."""
    return int(model.get_input_embeddings().weight.shape[0])


def stop_tokens_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer, by the tokenizer and by the model's generation config."""
    configured = model.generation_config.eos_token_id
    tokens = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [tokenizer.eos_token_id, *tokens] if token is not None)


def check_tokenizer(tokenizer: Any, rows: int, folder: Path) -> None:
    """Check a vocabulary as :func:`check_vocabulary` does. Turn off what cuts or pads a text, and warn.

    Raises:
        SourceError: a token that is no added one has no row.
    """
    check_vocabulary(tokenizer, rows, folder)
    core: Any = getattr(tokenizer, "backend_tokenizer", None)
    settings = [name for name in ("truncation", "padding") if getattr(core, name, None)]
    if settings:
        core.no_truncation()
        core.no_padding()
        remark(
            f"{folder / 'tokenizer.json'}: sets {' and '.join(settings)}, which other programs may apply to questions. "
            "It is turned off here: questions are put whole, and as long as they are."
        )


def check_vocabulary(tokenizer: Any, rows: int, folder: Path) -> None:
    """Check that any text gives tokens of the first *rows*.

    Tokens that were added to a vocabulary may lack a row: many published tokenizers have some that nothing uses.
    :func:`require_rows` looks at each text for them.

    Raises:
        SourceError: a token that is no added one has no row.
    """
    added = tokenizer.added_tokens_decoder
    require_rows(
        {token for token in tokenizer.get_vocab().values() if token not in added}, tokenizer, rows, str(folder)
    )


def require_rows(tokens: Collection[int], tokenizer: Any, rows: int, where: str) -> None:
    """Check that each of *tokens* has a row among the embeddings.

    Args:
        where: the model, and the text in which the tokens stand, for the message.

    Raises:
        SourceError: a token has no row.
    """
    if max(tokens, default=0) < rows:
        return
    homeless = sorted({token for token in tokens if token >= rows})
    named = ", ".join(f"{tokenizer.convert_ids_to_tokens(token)!r} ({token})" for token in homeless[:NAMED])
    more = f" and {len(homeless) - NAMED} more" if len(homeless) > NAMED else ""
    raise SourceError(
        f"{where}: the model has rows for {rows} tokens, and none for {named}{more}. Get the tokenizer that the model "
        "was trained with, or a model whose embeddings were resized and trained for these tokens."
    )
