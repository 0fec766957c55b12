"""Drawn answers: each token follows its probability, and depends on question, draw and position alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from safety_harness.conversation import Asked, Conversation, Decoding, Turn
from safety_harness.errors import NotFinite
from safety_harness.models.decoding.cuda_graphs import GraphCache
from safety_harness.models.decoding.drafts import Drafts
from safety_harness.models.decoding.sampling import drawn, uniform
from safety_harness.models.generate import Generator, Screen
from safety_harness.models.load import load
from safety_harness.models.speedups import Speedups
from tests.builders import SHORT
from tests.models.answering import NEW, QUESTIONS, Answers, Pairs, by_definition, count_passes, generator, tokens

TALK = (Turn("system", "take two of them."), Turn("user", SHORT), Turn("assistant", "sure."), Turn("user", "what ?"))
ASKED: list[Asked] = [*QUESTIONS[:4], Conversation(TALK), Conversation(TALK, "sure, take"), *QUESTIONS[4:]]
# At this temperature the likeliest token of these models has about a third, and ten others have more than 0.02.
WARM = Decoding(NEW, 0.5)


def heard(asked: Generator, questions: Sequence[Asked], how: Decoding = WARM, screen: Screen | None = None) -> Answers:
    """Return answers as tokens, without the words that a conversation begins them with."""
    return [json.loads(answer[answer.index("[") :]) for answer in asked.answers(questions, how, screen)]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "qwen3_moe", "mpt"])
def test_an_answer_is_drawn_alone_as_in_any_batch(pairs: Pairs, architecture: str) -> None:
    """Ask in batches of several sizes and in another order, twice (once with drafts), and without any part."""
    loaded = load(pairs(architecture, False)[0], "float32")
    rows = [generator(loaded, 1).encode(asked) for asked in ASKED]
    alone = [by_definition(loaded, row, WARM.seed(asked), 0.5, NEW) for row, asked in zip(rows, ASKED, strict=True)]
    assert len(set(map(tuple, alone))) == len(ASKED)
    assert alone != heard(generator(loaded, 64), ASKED, Decoding(NEW))
    for batch_size in (3, 64):
        asking = generator(loaded, batch_size)
        assert [heard(asking, ASKED), heard(asking, ASKED)] == [alone] * 2
        assert heard(asking, ASKED[::-1]) == alone[::-1]
    assert heard(generator(loaded, 3, Speedups.none()), ASKED) == alone


@pytest.mark.parametrize("temperature", [1e-9, 1e-300, 5e-324])
def test_near_zero_the_likeliest_tokens_are_drawn(pairs: Pairs, temperature: float) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    cold = Decoding(NEW, temperature, 3)
    assert heard(generator(loaded, 3), ASKED, cold) == heard(generator(loaded, 3), ASKED, Decoding(NEW))


def test_tokens_are_drawn_as_often_as_the_model_says(pairs: Pairs) -> None:
    """Draw a first token 500 times. The counts fit the softmax at this temperature, and at no other one."""
    loaded = load(pairs("llama", False)[0], "float32")
    loaded.model.generation_config.eos_token_id = None
    asked = generator(loaded, 64)
    counts = np.zeros(loaded.model.config.vocab_size)
    for draw in range(500):
        ((token,),) = heard(asked, [SHORT], Decoding(1, 0.5, draw))
        counts[token] += 1
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([asked.encode(SHORT)])).logits[0, -1].double()
    fits = {}
    for temperature in (0.4, 0.5, 0.65):
        due = 500 * torch.softmax(logits / temperature, 0).numpy()
        often = due >= 5
        seen = [*counts[often], counts[~often].sum()]
        fits[temperature] = stats.chisquare(seen, [*due[often], due[~often].sum()]).pvalue
    assert often.sum() > 10
    assert fits[0.5] > 0.01
    assert max(fits[0.4], fits[0.65]) < 1e-4, fits


def test_draws_differ_and_each_repeats(pairs: Pairs) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    draws = [heard(generator(loaded, 64), ASKED, replace(WARM, draw=draw)) for draw in range(4)]
    for at in range(len(ASKED)):
        assert len({tuple(draw[at]) for draw in draws}) == 4
    assert heard(generator(loaded, 2), ASKED, replace(WARM, draw=2)) == draws[2]
    twice = heard(generator(loaded, 64), [SHORT, Conversation.of(SHORT), SHORT])
    assert twice == [twice[0]] * 3


def test_a_draft_is_kept_where_sampling_chooses_it(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give right drafts, drafts that go astray, and those of the greedy answers: no token changes."""
    loaded = load(pairs("llama", False)[0], "float32")
    whole = heard(generator(loaded, 64, Speedups.none()), QUESTIONS)
    greedy = heard(generator(loaded, 64), QUESTIONS, Decoding(NEW))
    astray = [[*answer[: at % 5], *(token ^ 1 for token in answer[at % 5 :]), 7, 7] for at, answer in enumerate(whole)]
    passes = {}
    for name, known in {"right": whole, "astray": astray, "greedy": greedy}.items():
        memory = Drafts()
        for question, answer in zip(QUESTIONS, known, strict=True):
            memory.remember([WARM.seed(question), 0], answer)
        asked = generator(loaded, 64, replace(Speedups.for_model(loaded.model), drafts=memory))
        read = count_passes(loaded.model, monkeypatch)
        assert heard(asked, QUESTIONS) == whole
        passes[name] = len(read)
    assert passes["right"] == 1
    assert 1 < passes["astray"] <= NEW


def test_drawn_answers_are_no_drafts_of_greedy_ones(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw often between two greedy rounds: the second one still takes one pass."""
    loaded = load(pairs("llama", False)[0], "float32")
    asked = generator(loaded, 64)
    first = tokens(asked)
    for draw in range(10):
        heard(asked, QUESTIONS, replace(WARM, draw=draw))
    read = count_passes(loaded.model, monkeypatch)
    assert tokens(asked) == first
    assert len(read) == 1


def test_no_graph_is_replayed_where_tokens_are_drawn(pairs: Pairs) -> None:
    """Draw with graphs at hand, in bfloat16, as on a GPU; then decode greedily by them."""
    loaded = load(pairs("llama", True)[0], "bfloat16")
    graphs = GraphCache(loaded.model)
    parts = Speedups.for_model(loaded.model)
    drew = heard(generator(loaded, 64, replace(parts, graphs=graphs)), QUESTIONS)
    assert not graphs.decode_graphs
    assert not graphs.prefix_graphs
    assert drew == heard(generator(loaded, 64, parts), QUESTIONS)
    tokens(generator(loaded, 64, replace(parts, graphs=graphs)))
    assert graphs.decode_graphs


def test_a_drawn_answer_is_cut_off_at_a_screen(pairs: Pairs) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    whole = heard(generator(loaded, 64), ASKED)
    cut = heard(generator(loaded, 64), ASKED, WARM, Screen(3, lambda text, _: text.startswith("sure, take")))
    begun = [isinstance(asked, Conversation) and bool(asked.prefill) for asked in ASKED]
    assert cut == [answer if starts else answer[:3] for answer, starts in zip(whole, begun, strict=True)]


def test_a_halved_batch_draws_the_same(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    whole = heard(generator(loaded, 64), ASKED)
    decode = Generator.decode

    def scarce(self: Generator, rows: Sequence[Sequence[int]], *rest: Any) -> Answers:
        if len(rows) > 2:
            raise torch.OutOfMemoryError("tried to allocate 40 GiB")
        return decode(self, rows, *rest)

    monkeypatch.setattr(Generator, "decode", scarce)
    with pytest.warns(UserWarning, match="Out of memory"):
        assert heard(generator(loaded, 64), ASKED) == whole


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_nothing_is_drawn_from_a_number_out_of_range(pairs: Pairs, number: float) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.down_proj.weight[3, 4] = number
    with pytest.raises(NotFinite):
        generator(loaded, 4).answers(QUESTIONS, WARM)


def test_a_token_of_no_probability_is_never_drawn() -> None:
    """Draw at both ends of the range, where the first tokens and the last ones are forbidden."""
    none = -torch.inf
    logits = torch.tensor([[none, none, 1.0, 2.0, none]]).expand(3, -1)
    assert drawn(logits, 1.0, [0.0, 0.5, 1 - 2.0**-52]).tolist() == [2, 3, 3]
    flat = torch.zeros(2, 1000)
    assert drawn(flat, 1e308, [0.0, 1 - 2.0**-52]).tolist() == [0, 999]


def test_the_numbers_are_equal_on_any_machine() -> None:
    """Compare with the first 13 hexadecimal digits of what `sha256sum` says of "1 0", "1 1" and "7 12"."""
    digits = [0x8FAD34BBB0C1E, 0x020A7C91E3072, 0xF06F7D682B5C1]
    assert [uniform(1, 0), uniform(1, 1), uniform(7, 12)] == [number / 16**13 for number in digits]
    many = [uniform(seed, position) for seed in range(100) for position in range(20)]
    assert stats.kstest(many, "uniform").pvalue > 0.01
