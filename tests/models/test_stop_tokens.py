"""An answer ends at any end token of the model or of its tokenizer, and at the limit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from safety_harness.models.generate import Generator
from safety_harness.models.load import load
from tests.builders import LONG, SHORT
from tests.models.answering import (
    NEW,
    QUESTIONS,
    Answers,
    Pairs,
    count_passes,
    generator,
    reference,
    references,
    tokens,
)


@pytest.mark.parametrize("as_list", [True, False])
def test_stops_at_any_end_token(pairs: Pairs, as_list: bool) -> None:
    """Choose end tokens among those that the answers hold, so that rows of one batch end at different steps."""
    loaded = load(pairs("qwen3", False)[0], "float32")
    loaded.tokenizer.eos_token = None
    full = references(loaded)
    ends = [full[0][5], full[1][2]] if as_list else [full[0][5]]
    loaded.model.generation_config.eos_token_id = ends if as_list else ends[0]
    ended = references(loaded)
    assert len(ended[0]) <= 5
    assert {len(answer) for answer in ended} >= {NEW}
    for batch_size in (1, 3, 64):
        assert tokens(generator(loaded, batch_size)) == ended


def test_the_tokenizers_own_end_token_counts_too(pairs: Pairs) -> None:
    """Make the fourth token of an answer the tokenizer's end token."""
    loaded = load(pairs("qwen3", False)[0], "float32")
    fourth = references(loaded, [SHORT])[0][3]
    loaded.tokenizer.eos_token = loaded.tokenizer.convert_ids_to_tokens(fourth)
    assert len(tokens(generator(loaded, 2), [SHORT, LONG])[0]) <= 3


def test_an_answer_that_ends_at_once_is_empty(pairs: Pairs) -> None:
    """Make the first token of every answer an end token."""
    loaded = load(pairs("llama", False)[0], "float32")
    encode = generator(loaded, 1).encode
    loaded.model.generation_config.eos_token_id = [reference(loaded, encode(question), 1)[0] for question in QUESTIONS]
    answers = Generator(loaded.model, loaded.tokenizer, batch_size=3).answers(QUESTIONS, NEW)
    assert answers == [""] * len(QUESTIONS)


def test_generation_ends_early_when_all_rows_have_ended(
    pairs: Pairs, expected: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make the third token of every answer an end token, and count passes."""
    loaded = load(pairs("llama", False)[0], "float32")
    loaded.model.generation_config.eos_token_id = [answer[2] for answer in expected("llama")]
    passes = count_passes(loaded.model, monkeypatch)
    generator(loaded, 64).answers(QUESTIONS, NEW)
    assert 1 <= len(passes) <= 3


def test_a_model_without_an_end_token_answers_to_the_limit(pairs: Pairs, expected: Callable[..., Answers]) -> None:
    """Take away every end token and the pad token."""
    loaded = load(pairs("llama", False)[0], "float32")
    whole = expected("llama")
    loaded.model.generation_config.eos_token_id = None
    loaded.tokenizer.eos_token = loaded.tokenizer.pad_token = None
    answers = tokens(generator(loaded, 3))
    assert [len(answer) for answer in answers] == [NEW] * len(QUESTIONS)
    assert answers == whole
