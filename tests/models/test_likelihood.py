"""Compare likelihoods and divergences with transformers' own loss and with sums by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from safety_harness.errors import DataError
from safety_harness.models import likelihood
from safety_harness.models.generate import Generator
from safety_harness.models.likelihood import (
    TextScore,
    answer_logprobs,
    batches,
    check_documents,
    divergence,
    rows_at_once,
    text_scores,
)
from safety_harness.models.load import LoadedModel, load
from tests.builders import ARCHITECTURES, CORPUS, LONG, SHORT

Pairs = Callable[[str, bool], tuple[Path, Path]]
DOCUMENTS = [*CORPUS, LONG, SHORT, "bread", "the answer", "3 plus 4 is 7", "what is the capital of france ?", "i"]


def opened(pairs: Pairs, architecture: str, side: int = 0) -> tuple[LoadedModel, Generator]:
    loaded = load(pairs(architecture, False)[side], "float32")
    return loaded, Generator(loaded.model, loaded.tokenizer, batch_size=4)


# --- text_scores ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_transformers_loss_times_tokens(
    pairs: Pairs, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, generator = opened(pairs, architecture)
    longest = max(len(row) for row in loaded.tokenizer(DOCUMENTS)["input_ids"])
    # More than one batch, of different widths.
    monkeypatch.setattr(
        likelihood, "MAX_LOGPROBS_AT_ONCE", 5 * longest * loaded.model.config.get_text_config().vocab_size
    )
    assert len(DOCUMENTS) > rows_at_once(generator, longest) == 5
    for document, score in zip(DOCUMENTS, text_scores(generator, DOCUMENTS), strict=True):
        ids = torch.tensor([loaded.tokenizer(document)["input_ids"]])
        count = ids.shape[1] - 1
        assert score.tokens == count
        if count:
            with torch.inference_mode():
                loss = loaded.model(input_ids=ids, labels=ids).loss
            assert score.nll == pytest.approx(float(loss) * count, rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_neither_padding_nor_order_changes_a_score(pairs: Pairs, architecture: str) -> None:
    _, generator = opened(pairs, architecture)
    together = text_scores(generator, DOCUMENTS)
    for document, score in zip(DOCUMENTS, together, strict=True):
        alone = text_scores(generator, [document])[0]
        assert (score.tokens, score.nll) == (alone.tokens, pytest.approx(alone.nll, rel=1e-5, abs=1e-6))
    backwards = text_scores(generator, DOCUMENTS[::-1])[::-1]
    assert [s.nll for s in backwards] == pytest.approx([s.nll for s in together], rel=1e-5, abs=1e-6)


def test_a_beginning_token_predicts_the_first_and_is_not_counted(pairs: Pairs) -> None:
    loaded, generator = opened(pairs, "llama")
    plain = text_scores(generator, DOCUMENTS)
    loaded.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    scores = text_scores(generator, DOCUMENTS)
    assert [s.tokens for s in scores] == [s.tokens + 1 for s in plain]
    ids = loaded.tokenizer("bread")["input_ids"]
    assert ids[0] == 1
    with torch.inference_mode():
        logprobs = loaded.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = -sum(float(logprobs[i, token]) for i, token in enumerate(ids[1:]))
    assert scores[DOCUMENTS.index("bread")] == TextScore(pytest.approx(expected, rel=1e-5), len(ids) - 1)


def test_perplexity_without_knowledge_is_the_vocabulary_size(pairs: Pairs) -> None:
    loaded, generator = opened(pairs, "llama")
    loaded.model.lm_head.weight.data.zero_()
    scores = text_scores(generator, DOCUMENTS)
    tokens = sum(score.tokens for score in scores)
    assert math.exp(sum(score.nll for score in scores) / tokens) == pytest.approx(300, rel=1e-5)


# --- answer_logprobs and divergence ---------------------------------------------------------------

QUESTIONS = [LONG, SHORT, "what ?", "i"]
ANSWERS = ["take two", "", "i cannot help with that request.", "7"]


@pytest.mark.parametrize("saved", [1, None])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_row_t_predicts_token_t_and_the_last_row_the_end(pairs: Pairs, architecture: str, saved: int | None) -> None:
    """Compare with one unpadded pass a token, with the common beginning read once and with it read in every row."""
    loaded, generator = opened(pairs, architecture)
    generator.speedups = replace(generator.speedups, min_prefill_tokens_saved=saved)
    logprobs = answer_logprobs(generator, QUESTIONS, ANSWERS)
    for question, answer, rows in zip(QUESTIONS, ANSWERS, logprobs, strict=True):
        prompt, reply = generator.encode(question), loaded.tokenizer(answer)["input_ids"]
        assert rows.shape == (len(reply) + 1, 300)
        assert rows.dtype == torch.float32
        for t in range(len(reply) + 1):  # what the model says after the prompt and t tokens, nothing else in sight
            with torch.inference_mode():
                logits = loaded.model(input_ids=torch.tensor([[*prompt, *reply[:t]]])).logits[0, -1]
            torch.testing.assert_close(rows[t], logits.log_softmax(-1), atol=2e-4, rtol=1e-4)


def test_the_greedy_answer_is_the_argmax_of_its_rows(pairs: Pairs) -> None:
    """Compare answer_logprobs with generation, for answers whose text is read back as the tokens that it came from."""
    loaded, generator = opened(pairs, "qwen3")
    checked = 0
    for question in [f"{text} {SHORT}" for text in DOCUMENTS]:
        answer = generator.answers([question], 2)[0]
        reply = loaded.tokenizer(answer)["input_ids"]
        prompt = torch.tensor([generator.encode(question)])
        greedy = loaded.model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=2
        )[0, prompt.shape[1] :].tolist()
        if reply == greedy[: len(reply)] and reply:
            rows = answer_logprobs(generator, [question], [answer])[0]
            assert rows.argmax(-1)[: len(reply)].tolist() == reply
            checked += 1
    assert checked >= 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_divergence_is_zero_only_from_itself(pairs: Pairs, architecture: str) -> None:
    student = answer_logprobs(opened(pairs, architecture)[1], QUESTIONS, ANSWERS)
    teacher = answer_logprobs(opened(pairs, architecture, side=1)[1], QUESTIONS, ANSWERS)
    for one, two in zip(student, teacher, strict=True):
        assert divergence(one, one) == 0.0
        assert divergence(one, two) > 1e-3
        assert divergence(two, one) > 1e-3
        assert divergence(one, two) != divergence(two, one)


def test_divergence_equals_a_sum_by_hand() -> None:
    student = [[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]
    patched = [[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]]
    by_hand = [
        sum(p * math.log(p / q) for p, q in zip(a, b, strict=True)) for a, b in zip(student, patched, strict=True)
    ]
    mean = divergence(torch.tensor(student).log(), torch.tensor(patched).log())
    assert mean == pytest.approx(sum(by_hand) / 2, rel=1e-5)
    assert by_hand[0] == pytest.approx(0.25 * math.log(2))


@pytest.mark.parametrize(
    ("document", "message"), [(f"{LONG} " * 40, "more than the model's context"), ("", "no second token")]
)
def test_a_document_that_cannot_be_scored_is_named(pairs: Pairs, document: str, message: str) -> None:
    loaded = load(pairs("gpt2", True)[0], "float32")
    with pytest.raises(DataError, match=message):
        check_documents(Generator(loaded.model, loaded.tokenizer, batch_size=2), [SHORT, document])


def test_batches() -> None:
    assert batches([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert batches([], 2) == []
