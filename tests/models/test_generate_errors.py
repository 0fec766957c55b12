"""What goes wrong while questions are answered: memory, numbers out of range, tokens without an embedding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from safety_harness.errors import NotFinite, SourceError
from safety_harness.models.generate import Generator
from safety_harness.models.load import LoadedModel, load
from tests.models.answering import NEW, QUESTIONS, Answers, Pairs, generator, tokens


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_out_of_memory_halves_the_batch_and_goes_on(
    pairs: Pairs, expected: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Fail every batch of more than two rows, as a GPU does and as torch does on a CPU."""
    asked = generator(load(pairs("llama", True)[0], "float32"), len(QUESTIONS))
    decode = Generator.decode

    def scarce(self: Generator, rows: Sequence[Sequence[int]], *rest: Any) -> Answers:
        if len(rows) > 2:
            if kind == "cpu":
                torch.empty(2**50, dtype=torch.uint8)
            raise torch.OutOfMemoryError("tried to allocate 40 GiB")
        return decode(self, rows, *rest)

    monkeypatch.setattr(Generator, "decode", scarce)
    with pytest.warns(
        UserWarning, match=r"Out of memory with (7 questions at once; going on with 3|3 .* with 1)"
    ) as warned:
        assert tokens(asked) == expected("llama", True)
    assert len(warned) == 2
    assert asked.batch_size == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), RuntimeError("another")])
def test_what_a_smaller_batch_cannot_help_is_raised(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Fail a batch of one row, and fail with an error that is not about memory."""

    def never(*_: Any) -> Answers:
        raise error

    monkeypatch.setattr(Generator, "decode", never)
    asked = generator(load(pairs("llama", True)[0], "float32"), 1)
    with pytest.raises(RuntimeError if str(error) == "another" else SourceError, match=r"fewer workers|another"):
        asked.answers(QUESTIONS, NEW)


def test_a_pad_token_without_a_row_is_never_read(pairs: Pairs, expected: Callable[..., Answers]) -> None:
    """Add a pad token that has no row among the embeddings, as some published tokenizers have."""
    loaded = load(pairs("llama", False)[0], "float32")
    tokenizer = copy.copy(loaded.tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id >= loaded.model.get_input_embeddings().num_embeddings
    asked = generator(LoadedModel(loaded.model, tokenizer, loaded.checkpoint), 64)
    assert tokens(asked) == expected("llama")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_out_of_range_is_reported(pairs: Pairs, number: float) -> None:
    """Put a NaN or an infinity into one weight."""
    loaded = load(pairs("llama", True)[0], "float32")
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.down_proj.weight[3, 4] = number
    with pytest.raises(NotFinite):
        generator(loaded, 4).answers(QUESTIONS, NEW)
