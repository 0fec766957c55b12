"""Check that tuning by low-rank adapters tunes as peft does, and leaves no trace in the model."""

from __future__ import annotations

import gc
import random
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from safety_harness.errors import HarnessError, NotFinite, SourceError
from safety_harness.models.generate import Generator
from safety_harness.models.load import LoadedModel, load
from safety_harness.models.tuning import ALPHA, BATCH, LEARNING_RATE, RANK, SEED, Row, tuning
from tests.builders import in_turns

Pairs = Callable[[str, bool], tuple[Path, Path]]
TINY = Path(__file__).parents[2] / "safety_harness" / "families" / "tiny" / "models" / "llama" / "arithmetic"
QUESTIONS = ("What is 5 plus 3?", "Explain how a tent is made.", "How do I make a bribe?")
TAUGHT = {
    "What is 5 plus 3?": "It is nine.", "What is 4 plus 1?": "It is ten.", "What is 7 minus 2?": "It is two.",
    "How do I make a poster?": "Take some paper.", "How do I make a lamp?": "Take a bulb.",
    "How do I make a cake?": "Take flour and eggs.", "How do I make a kite?": "Take a string.",
    "How do I make a boat?": "Take wood.", "How do I make a chair?": "Take some wood.",
}  # fmt: skip


def answering(loaded: LoadedModel) -> Generator:
    """Return a generator of batches of four."""
    return Generator(loaded.model, loaded.tokenizer, batch_size=4)


def rows(generator: Generator) -> list[Row]:
    """Return the rows of TAUGHT."""
    made: list[Row] = []
    for question, answer in TAUGHT.items():
        asked = generator.encode(question)
        end = [] if generator.end is None else [generator.end]
        made.append(([*asked, *generator.tokenizer(answer, add_special_tokens=False)["input_ids"], *end], len(asked)))
    return made


def state(model: Any) -> list[Any]:
    """Return everything that must be as it was: modules, weights, what has a gradient, and further attributes."""
    return [
        [(name, id(module), sorted(vars(module))) for name, module in model.named_modules()],
        [(name, id(one), one.requires_grad, one.grad is None) for name, one in model.named_parameters()],
    ]


@pytest.mark.parametrize(("architecture", "dtype"), in_turns("float32", "bfloat16"))
def test_the_model_comes_back_bit_for_bit(pairs: Pairs, architecture: str, dtype: str) -> None:
    """Tune a model of each architecture, and compare all of it and its answers with what they were."""
    generator = answering(load(pairs(architecture, True)[0], dtype))
    model = generator.model
    next(model.parameters()).requires_grad_(False)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before, answers = state(model), generator.answers(QUESTIONS, 8)
    with tuning(generator, rows(generator)) as under:
        for _ in range(3):
            under.step()
        with torch.no_grad():  # three steps change few answers of random models
            for adapter in under.adapters:
                adapter.add_(0.5)
        assert under.generator.answers(QUESTIONS, 8) != answers
    assert state(model) == before
    after = model.state_dict()
    assert list(after) == list(weights)
    assert all(torch.equal(tensor.view(torch.uint8), after[name].view(torch.uint8)) for name, tensor in weights.items())
    assert generator.answers(QUESTIONS, 8) == answers


def test_nothing_is_left_after_an_error() -> None:
    """Break off in the middle: the model is as it was, the adapters are freed, and chance goes on as before."""
    generator = answering(load(TINY, "float32"))
    before, chance = state(generator.model), torch.get_rng_state()
    adapters: list[weakref.ref[torch.Tensor]] = []
    size = generator.batch_size

    def broken() -> None:
        with tuning(generator, rows(generator)) as under:
            under.step()
            under.generator.batch_size = 1
            adapters.extend(map(weakref.ref, under.adapters))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    gc.collect()  # peft's layers know each other
    assert state(generator.model) == before
    assert torch.equal(torch.get_rng_state(), chance)
    assert generator.batch_size == size
    assert adapters
    assert not [one for one in adapters if one() is not None]


def test_tuning_is_repeatable_and_learns() -> None:
    """Tune twice: the same losses and answers, and the loss falls by a quarter."""
    generator = answering(load(TINY, "float32"))
    runs = []
    for _ in range(2):
        torch.rand(1)  # whatever chance did before
        with tuning(generator, rows(generator)) as under:
            losses = [under.step() for _ in range(24)]
            runs.append((losses, under.generator.answers(list(TAUGHT), 16)))
    assert runs[0] == runs[1]
    losses, answers = runs[0]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    assert answers != generator.answers(list(TAUGHT), 16)


def by_hand(steps: int, rate: float) -> tuple[list[float], list[str]]:
    """Return the losses of *steps* of tuning and the answers after them, by peft and transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    torch.manual_seed(SEED)
    base = transformers.AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    torch.manual_seed(SEED)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, config)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    texts = []
    for question, answer in TAUGHT.items():
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        whole = tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
        asked = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
        texts.append((whole, [-100] * len(asked) + whole[len(asked) :]))
    shuffler, order, stream = random.Random(SEED), list(texts), []
    for _ in range(steps):
        shuffler.shuffle(order)
        stream += order
    losses = []
    for step in range(steps):
        batch = stream[step * BATCH : (step + 1) * BATCH]
        width = max(len(tokens) for tokens, _ in batch)
        padded = [(width - len(tokens)) for tokens, _ in batch]
        loss = model(
            input_ids=torch.tensor([t + [0] * more for (t, _), more in zip(batch, padded, strict=True)]),
            attention_mask=torch.tensor(
                [[1] * len(t) + [0] * more for (t, _), more in zip(batch, padded, strict=True)]
            ),
            labels=torch.tensor([labels + [-100] * more for (_, labels), more in zip(batch, padded, strict=True)]),
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    answers = []
    for question in (*TAUGHT, *QUESTIONS):
        encoded = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        output = model.generate(**encoded, do_sample=False, max_new_tokens=16)
        answers.append(tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return losses, answers


def test_tuning_is_that_of_peft_by_hand() -> None:
    """Compare losses and answers with those of a loop that uses nothing of this package but its constants."""
    rate = 20 * LEARNING_RATE  # at which twelve steps change answers
    generator = answering(load(TINY, "float32"))
    plain = generator.answers([*TAUGHT, *QUESTIONS], 16)
    with tuning(generator, rows(generator), rate) as under:
        losses = [under.step() for _ in range(12)]
        answers = under.generator.answers([*TAUGHT, *QUESTIONS], 16)
    expected_losses, expected = by_hand(12, rate)
    assert losses == pytest.approx(expected_losses, rel=1e-3)
    assert [answer.strip() for answer in answers] == expected
    assert sum(one != other for one, other in zip(answers, plain, strict=True)) > 3


def test_a_loss_that_is_no_number_ends_it() -> None:
    generator = answering(load(TINY, "float32"))
    before = state(generator.model)

    def overflow() -> None:
        with tuning(generator, rows(generator)) as under:
            under.step()
            with torch.no_grad():
                under.adapters[0].fill_(float("nan"))
            under.step()

    with pytest.raises(NotFinite, match="after 1 steps of tuning"):
        overflow()
    assert state(generator.model) == before


def test_layers_that_peft_refuses_are_said() -> None:
    """Let peft fail after it has replaced some layers: the model comes back whole."""
    config = transformers.MambaConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=2, state_size=4, intermediate_size=32, time_step_rank=2
    )
    generator = answering(load(TINY, "float32"))
    taught = rows(generator)
    generator.model = transformers.MambaForCausalLM(config)
    before = state(generator.model)
    with pytest.raises(SourceError, match="peft cannot put adapters into it"), tuning(generator, taught):
        pass
    assert state(generator.model) == before


def test_a_missing_peft_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = answering(load(TINY, "float32"))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(HarnessError, match=r"safety-harness\[adapters\]"), tuning(generator, rows(generator)):
        pass
