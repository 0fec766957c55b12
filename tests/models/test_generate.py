"""Batched greedy answers are, token for token, what each question gets alone and what transformers gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safety_harness.errors import DataError
from safety_harness.models.decoding.lengths import padding_limit, shared_beginning
from safety_harness.models.generate import Generator
from safety_harness.models.load import LoadedModel, load
from safety_harness.models.speedups import Speedups
from tests.builders import ARCHITECTURES, CONTEXT, LONG, SHORT, WINDOW, make_tokenizer
from tests.models.answering import NEW, QUESTIONS, Answers, Pairs, count_passes, generator, references, tokens


@pytest.mark.parametrize("tied", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batches_equal_transformers_one_by_one(
    pairs: Pairs, expected: Callable[..., Answers], architecture: str, tied: bool
) -> None:
    """Compare batches of several sizes with transformers, with questions on both sides of a sliding window."""
    loaded = load(pairs(architecture, tied)[0], "float32")
    lengths = [len(generator(loaded, 1).encode(question)) for question in QUESTIONS]
    assert min(lengths) <= WINDOW < 4 * WINDOW < max(lengths)
    alone = expected(architecture, tied)
    # Tied embeddings change only which tensor the head reads, so one size is enough for them.
    for batch_size in (3,) if tied else (1, 2, 3, 64):
        assert tokens(generator(loaded, batch_size)) == alone, batch_size
    if not tied:
        assert len({tuple(answer) for answer in alone}) > 3  # the models do not all say one thing


@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "gemma3_text"])
def test_the_sliding_window_matters_here(pairs: Pairs, architecture: str, tmp_path: Path) -> None:
    """Check that a wider window changes an answer. Otherwise the test above would prove nothing about windows."""
    folder = Path(shutil.copytree(pairs(architecture, False)[0], tmp_path / "wide"))
    config = folder / "config.json"
    narrow = f'"sliding_window": {WINDOW}'
    assert narrow in config.read_text()
    config.write_text(config.read_text().replace(narrow, f'"sliding_window": {CONTEXT}'))
    narrow_model, wide_model = load(pairs(architecture, False)[0], "float32"), load(folder, "float32")
    assert tokens(generator(narrow_model, 2), [LONG]) != tokens(generator(wide_model, 2), [LONG])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shared_beginning_is_read_once(pairs: Pairs, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that a system prompt before every question changes no token, and is read once a batch."""
    loaded = load(pairs(architecture, False)[0], "float32")
    loaded.tokenizer.chat_template = f"{{{{ bos_token }}}}{'be kind. ' * 6}" + make_tokenizer().chat_template
    alone = references(loaded)
    asked = generator(loaded, 64)
    padded = len(QUESTIONS) * max(len(asked.encode(question)) for question in QUESTIONS)
    read = count_passes(loaded.model, monkeypatch)
    assert tokens(asked) == alone
    limit = padding_limit(loaded.model.config.get_text_config())
    assert sum(read[:2]) < padded - 100 or (limit is not None and read[0] == padded)


@pytest.mark.parametrize("left_out", [
    {"drafts": None}, {"preallocated": False}, {"packed": False}, {"min_prefill_tokens_saved": None}, None
])  # fmt: skip
def test_without_a_speedup_every_token_is_the_same(
    pairs: Pairs, expected: Callable[..., Answers], left_out: dict[str, None] | None
) -> None:
    """Leave out each part, and then all parts. The second time, answers are known and could serve as drafts."""
    loaded = load(pairs("llama", False)[0], "float32")
    every_part = Speedups.for_model(loaded.model)
    asked = generator(loaded, 64, Speedups.none() if left_out is None else replace(every_part, **left_out))
    assert [tokens(asked), tokens(asked)] == [expected("llama")] * 2


def test_order_and_repetition_of_questions_do_not_matter(pairs: Pairs) -> None:
    """Ask the questions backwards, one question twice, and none."""
    loaded = load(pairs("llama", False)[0], "float32")
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=3)
    answers = asked.answers(QUESTIONS, NEW)
    assert len(set(answers)) > 3
    assert asked.answers(QUESTIONS[::-1], NEW) == answers[::-1]
    assert asked.answers([SHORT, SHORT], NEW) == [answers[1]] * 2
    assert asked.answers([], NEW) == []


def test_text_is_the_decoded_answer_without_special_tokens(pairs: Pairs, expected: Callable[..., Answers]) -> None:
    """Compare answers as text with what the tokenizer makes of their tokens."""
    loaded = load(pairs("llama", False)[0], "float32")
    answers = Generator(loaded.model, loaded.tokenizer, batch_size=2).answers(QUESTIONS, NEW)
    for answer, ids in zip(answers, expected("llama"), strict=True):
        assert answer == loaded.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_the_chat_template_ends_where_the_answer_begins(pairs: Pairs) -> None:
    """Read an encoded question back: the template is used, and its first token stands there once."""
    loaded = load(pairs("llama", True)[0], "float32")
    question = generator(loaded, 1).encode(SHORT)
    assert loaded.tokenizer.decode(question) == f"<bos><user>{SHORT}<end><assistant>"
    assert question.count(loaded.tokenizer.bos_token_id) == 1


def test_a_model_without_a_chat_template_continues_the_question(pairs: Pairs) -> None:
    """Ask a model that has no template: the question itself is all that it reads."""
    loaded = load(pairs("llama", False)[0], "float32")
    loaded = LoadedModel(loaded.model, make_tokenizer(template=False), loaded.checkpoint)
    asked = generator(loaded, 2)
    assert asked.encode(SHORT) == loaded.tokenizer(SHORT)["input_ids"]
    assert tokens(asked, [LONG, SHORT]) == references(loaded, [LONG, SHORT])


def test_a_question_that_does_not_fit_is_named(pairs: Pairs) -> None:
    """Fill the context exactly, and then by one token too many."""
    asked = generator(load(pairs("llama", True)[0], "float32"), 2)
    longest_answer = CONTEXT - len(asked.encode(LONG))
    asked.answers([LONG, SHORT], longest_answer)
    with pytest.raises(DataError, match=f"context of {CONTEXT}") as caught:
        asked.answers([SHORT, LONG], longest_answer + 1)
    assert LONG[:60] in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "shared"),
    [([[1, 2, 3], [1, 2, 4], [1, 2]], 2), ([[1], [2]], 0), ([[5, 6]], 2), ([[1, 2], [1, 2]], 2), ([[], [1]], 0)],
)
def test_shared_beginning(rows: list[list[int]], shared: int) -> None:
    """Count the tokens that all rows begin with."""
    assert shared_beginning(rows) == shared
