"""A model that rotates long rows otherwise: no answer depends on the rows next to it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import torch

from safety_harness.conversation import Decoding
from safety_harness.models.decoding.lengths import rotary_switch, rows_together
from safety_harness.models.generate import Screen
from safety_harness.models.likelihood import answer_logprobs, text_scores
from safety_harness.models.load import LoadedModel, load
from safety_harness.models.speedups import Speedups
from tests.builders import make_config, make_model, make_tokenizer, save
from tests.models.answering import by_definition, generator, reference, tokens

SWITCH, NEW = 64, 12
WORDS = "what is the answer ? how do i bake a loaf of bread ? " * 20


@pytest.fixture(scope="module")
def longrope(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Return a Phi-3 whose long rows are rotated by a quarter of the frequencies of short ones."""
    folder = save(make_model("phi3", max_position_embeddings=256), make_tokenizer(), tmp_path_factory.mktemp("phi3"))
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    scaling = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    config |= {"rope_theta": 10_000.0, "original_max_position_embeddings": SWITCH, "rope_scaling": scaling}
    (folder / "config.json").write_text(json.dumps(config))
    return load(folder, "float32")


def questions(loaded: LoadedModel, lengths: Sequence[int]) -> list[str]:
    """Return one question of each of these *lengths* in tokens, with the template's."""
    encode = generator(loaded, 1).encode
    found = {len(encode(WORDS[start:end])): WORDS[start:end] for start in (0, 5) for end in range(6, 500)}
    return [found[length] for length in lengths]


# Far below the switch, just below, at every place from which an answer crosses it, just beyond, and far beyond.
LENGTHS = [9, 20, SWITCH - NEW, *range(SWITCH - NEW + 1, SWITCH + 4), 90, 150]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_answers_are_those_of_each_question_alone(longrope: LoadedModel, batch_size: int) -> None:
    """Compare with transformers, which reads a row again when it crosses the switch. The second time, use drafts."""
    asked = questions(longrope, LENGTHS)
    asked_by = generator(longrope, batch_size)
    alone = [reference(longrope, asked_by.encode(question), NEW) for question in asked]
    for _ in range(2):
        assert tokens(asked_by, asked, NEW) == alone
    assert tokens(generator(longrope, batch_size, Speedups.none()), asked[::-1], NEW) == alone[::-1]


@pytest.mark.parametrize("batch_size", [1, 64])
def test_drawn_answers_count_on_across_the_switch(longrope: LoadedModel, batch_size: int) -> None:
    """Draw alone, by passes that read everything again, and in batches; the second time with drafts."""
    asked = questions(longrope, LENGTHS)
    asked_by = generator(longrope, batch_size)
    how = Decoding(NEW, 0.5)
    alone = [by_definition(longrope, asked_by.encode(one), how.seed(one), 0.5, NEW) for one in asked]
    for _ in range(2):
        assert [json.loads(answer) for answer in asked_by.answers(asked, how)] == alone


def test_the_switch_matters_here(longrope: LoadedModel) -> None:
    """Put a short row into one pass with a long one, as batches were before: its answer changes."""
    asked = generator(longrope, 64, Speedups.none())
    rows = [asked.encode(question) for question in questions(longrope, [20, 150])]
    assert asked.decode(rows, NEW)[0] != asked.decode(rows[:1], NEW)[0]


def test_a_row_that_crosses_is_generated_in_full(longrope: LoadedModel) -> None:
    """Let a screen cut off every answer: of the crossing row it does not."""
    asked = questions(longrope, [20, SWITCH - 2, 150])
    whole = tokens(generator(longrope, 64), asked, NEW)
    cut = tokens(generator(longrope, 64), asked, NEW, Screen(2, lambda *_: False))
    assert cut == [whole[0][:2], whole[1], whole[2][:2]]


def test_scores_do_not_depend_on_other_rows(longrope: LoadedModel) -> None:
    """Score texts and answers together and one by one."""
    asked = generator(longrope, 64)
    texts = questions(longrope, [9, SWITCH - 4, 90, 20, 150])
    for score, text in zip(text_scores(asked, texts), texts, strict=True):
        (alone,) = text_scores(asked, [text])
        assert score.nll == pytest.approx(alone.nll, rel=1e-4)
        assert score.tokens == alone.tokens
    answers = ["the answer is 42", "is it ?", "", "what ?", "no"]
    for together, single in zip(
        answer_logprobs(asked, texts, answers),
        [answer_logprobs(asked, [text], [answer])[0] for text, answer in zip(texts, answers, strict=True)],
        strict=True,
    ):
        torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("lengths", "new", "switch", "together"),
    [
        ([1, 2, 99], 9, None, 3),
        ([1, 2, 56, 57, 99], 9, 64, 3),
        ([57, 58, 99], 9, 64, 1),
        ([64, 65], 9, 64, 1),
        ([64, 65], 1, 64, 1),
        ([65, 99], 9, 64, 2),
    ],
)
def test_rows_that_may_share_a_batch(lengths: list[int], new: int, switch: int | None, together: int) -> None:
    assert rows_together(lengths, new, switch) == together


def test_only_longrope_has_a_switch() -> None:
    assert all(rotary_switch(make_config(name)) is None for name in ("llama", "phi3", "gemma3_text", "mpt", "gpt2"))
    yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
    assert rotary_switch(make_config("llama", rope_parameters=yarn)) is None
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert rotary_switch(make_config("llama", rope_parameters=dynamic)) is None
