"""Tell which questions a model can read, by its tokenizer alone: no library of tokenizers is needed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from safety_harness.errors import DataError
from safety_harness.registry.named import Kind, languages, sets
from safety_harness.registry.prompts import PromptSet, read_prompts

# A stray symbol is unknown to many a good tokenizer. With one token in fifty, every third question has a hole.
MOST_UNKNOWN = 0.02
# Where a tokenizer knows every byte, what it cannot read falls into pieces. English has 1.2 to 1.5 tokens a word for
# the tokenizers of real models, 2.5 for those of the tiny ones, and their own world 1.3.
MOST_TOKENS_A_WORD = 2.0

Encode = Callable[[str], Sequence[int]]


def require_readable(prompts: PromptSet, tokenizer: Any) -> None:
    """Check that *tokenizer*, one of transformers, knows the letters and words of *prompts*.

    Raises:
        DataError: too many of their tokens stand for something unknown.
    """
    encode, unknown = _encoder(tokenizer, None)
    share = _unknown_share(prompts.said, encode, unknown)
    if share > MOST_UNKNOWN:
        raise DataError(
            f"{prompts.name}: {share:.0%} of its tokens are unknown to the tokenizer of {tokenizer.name_or_path}, so "
            "the model would be asked something else. Use questions in its language, or get the tokenizer that the "
            "model was trained with."
        )


def readable_sets(kind: Kind, tokenizer: Any, unknown: int | None = None) -> list[str]:
    """Return the named sets of a *kind* that a model can read, in the order of the catalogue. Nothing is fetched.

    Args:
        kind: of the sets.
        tokenizer: one of transformers, or a function from a text to its tokens.
        unknown: the token that the function gives for what it does not know; None if it has none.
    """
    encode, unknown = _encoder(tokenizer, unknown)
    read = {language: _is_read(read_prompts(file).texts, encode, unknown) for language, file in languages().items()}
    return [name for name, entry in sets(kind).items() if read[entry.language]]


def default_set(kind: Kind, tokenizer: Any, unknown: int | None = None) -> str:
    """Return the set of a *kind* to begin with: the first that needs no file of the user and that the model can read.

    The arguments are those of :func:`readable_sets`. A model whose tokens are letters or bytes reads everything in
    small pieces, so the catalogue's first set is its default.
    """
    known = [name for name, entry in sets(kind).items() if entry.report or "pypi" in entry.source]
    readable = readable_sets(kind, tokenizer, unknown)
    return next((name for name in known if name in readable), known[0])


def _is_read(texts: Sequence[str], encode: Encode, unknown: int | None) -> bool:
    """Return whether few tokens of *texts* are unknown, and few words are in many pieces."""
    tokens = sum(len(encode(text)) for text in texts)
    words = sum(len(text.split()) for text in texts)
    return tokens <= MOST_TOKENS_A_WORD * words and _unknown_share(texts, encode, unknown) <= MOST_UNKNOWN


def _unknown_share(texts: Iterable[str], encode: Encode, unknown: int | None) -> float:
    """Return the share of unknown tokens among those of *texts*, 0 for a tokenizer that knows everything."""
    if unknown is None:
        return 0.0
    tokens = [token for text in texts for token in encode(text)]
    return tokens.count(unknown) / max(1, len(tokens))


def _encoder(tokenizer: Any, unknown: int | None) -> tuple[Encode, int | None]:
    """Return the function from a text to its own tokens, and the token for what is unknown."""
    if not hasattr(tokenizer, "unk_token_id"):
        return tokenizer, unknown
    # Tokens around a text may be the unknown one: GPT-2 has one token for the beginning, the end and the unknown.
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.unk_token_id
