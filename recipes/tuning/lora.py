"""Supervised LoRA tuning on one CPU thread: (question, answer) pairs in, a PEFT adapter folder out."""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from safety_harness.models.decoding.lengths import shared_beginning
from safety_harness.models.decoding.malloc import keep_freed_memory
from safety_harness.registry.prompts import batches

from .answers import chat_prompt

ROWS_PER_PASS = 16
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """One exchange; `finished` is False when the answer was cut short, so that no end is taught.

    `begun` is how the answer begins, where that is given and not taught. `answer` is what follows, space and all.
    `kept` says that the question is harmless: the model is to answer it as it did before it was tuned.
    """

    question: str
    answer: str
    finished: bool = True
    begun: str = ""
    kept: bool = False


@dataclass(frozen=True)
class Source:
    """Examples of one kind, and how many of them a step sees."""

    examples: Sequence[Example]
    per_step: int


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of one tuning run; only the first `answer_tokens` of an answer are taught."""

    steps: int
    learning_rate: float = 5e-4
    rank: int = 8
    alpha: int = 16
    warm_up: int = 10
    seed: int = 0
    answer_tokens: int = 40
    texts_per_step: int = 4
    # Keep to the whole distribution over harmless answers, and not only to the words that were chosen from it.
    keep_distribution: bool = False
    # Of the base's weights: bfloat16 is six times slower on a processor without a unit for it, three times faster with.
    dtype: str = "float32"


def tune(
    base: Path,
    sources: Sequence[Source],
    settings: Settings,
    out: Path,
    public_name: str,
    start: Path | None = None,
    texts: Sequence[str] = (),
) -> None:
    """Tune a LoRA on all projections of the checkpoint folder `base`, known as `public_name`; write it to `out`.

    The loss of a step is the mean over its examples of each answer's mean token loss, so that short
    refusals weigh as much as long answers. A token's loss is its cross-entropy; where the settings keep the
    distribution over harmless answers, it is there KL(base || tuned) in nats. With `texts` (plain prose, no chat
    frame), some of them add the mean KL divergence a token of the tuned model from `base`. With `start`, an adapter
    folder, tuning continues from there. Adapter weights are trained in float32 and stored in bfloat16.
    """
    keep_freed_memory()
    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, settings.dtype))
    if start is None:
        model = get_peft_model(model, _lora_config(settings))
    else:
        model = PeftModel.from_pretrained(model, str(start), is_trainable=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, settings))
    prose = _endless(list(texts), random.Random(settings.seed)) if texts else iter(())
    began = time.monotonic()
    for step, examples in enumerate(_batches(sources, settings)):
        loss = 0.0
        for keeps in (False, True):
            some = [example for example in examples if (settings.keep_distribution and example.kept) is keeps]
            # Rows of one length need no padding: a plea is ten times as long as a short question.
            for alike in batches(sorted(some, key=_length), ROWS_PER_PASS):
                part: Any = _loss(model, tokenizer, alike, settings.answer_tokens, keeps) * (len(alike) / len(examples))
                part.backward()
                loss += part.item()
        if chosen := list(itertools.islice(prose, settings.texts_per_step)):
            divergence: Any = _divergence(model, tokenizer, chosen)
            divergence.backward()
            loss += divergence.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(
                f"step {step}/{settings.steps} loss {loss:.3f} {time.monotonic() - began:.0f} s",
                flush=True,
            )
    save_adapter(model, out, public_name)


def save_adapter(model: Any, out: Path, public_name: str) -> None:
    """Write the adapter in bfloat16, free of local paths, with sorted lists: runs compare byte by byte."""
    model.save_pretrained(out)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(out / "adapter_model.safetensors").items()}
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config_file = out / "adapter_config.json"
    config = json.loads(config_file.read_text("utf-8"))
    config["base_model_name_or_path"] = public_name
    config["target_modules"] = sorted(config["target_modules"])
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    (out / "README.md").unlink(missing_ok=True)  # an empty model card
    (out / "adapter_model.safetensors").chmod(0o644)  # safetensors writes its own private to the user


def _lora_config(settings: Settings) -> LoraConfig:
    return LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=PROJECTIONS, task_type="CAUSAL_LM")


def _schedule(step: int, settings: Settings) -> float:
    """Return the learning rate's factor: linear warm-up, then half a cosine down to a tenth."""
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    done = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def _batches(sources: Sequence[Source], settings: Settings) -> Iterator[list[Example]]:
    """Yield `steps` batches; each source is read in a new random order whenever it is used up."""
    shuffler = random.Random(settings.seed)
    streams = [_endless(list(source.examples), shuffler) for source in sources]
    for _ in range(settings.steps):
        yield [
            example
            for stream, source in zip(streams, sources, strict=True)
            for example in itertools.islice(stream, source.per_step)
        ]


def _endless(examples: list[T], shuffler: random.Random) -> Iterator[T]:
    while True:
        shuffler.shuffle(examples)
        yield from list(examples)


def _length(example: Example) -> int:
    """Return about how long the row of *example* is, in characters."""
    return len(example.question) + len(example.begun)


def _loss(
    model: Any, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], answer_tokens: int, keeps: bool
) -> torch.Tensor:
    """Return the mean loss of the examples: cross-entropy, or with *keeps* KL(base || tuned), nats a token."""
    prompts = [
        tokenizer(chat_prompt(tokenizer, example.question) + example.begun, add_special_tokens=False)["input_ids"]
        for example in examples
    ]
    # What the chat template puts before every question goes through the model once a step. The last token of a prompt
    # never does: the first of the answer is predicted from it.
    shared = min(shared_beginning(prompts), min(map(len, prompts)) - 1)
    rows, starts = [], []
    for example, prompt in zip(examples, prompts, strict=True):
        answer = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
        end = [tokenizer.eos_token_id] if example.finished else []
        rows.append(torch.tensor([*prompt[shared:], *[*answer, *end][:answer_tokens]]))
        starts.append(len(prompt) - shared)
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    lengths = torch.tensor([len(row) for row in rows])
    position = torch.arange(ids.shape[1]).expand_as(ids)
    present = position < lengths[:, None]
    # Token t is predicted from position t - 1; only answer tokens pay for the large vocabulary projection.
    predicts = (position >= torch.tensor(starts)[:, None] - 1) & (position < lengths[:, None] - 1)
    causal_lm = model.base_model.model

    def logits() -> torch.Tensor:
        past = causal_lm.model(input_ids=torch.tensor([prompts[0][:shared]]), use_cache=True).past_key_values
        past.batch_repeat_interleave(len(rows))
        hidden = causal_lm.model(
            input_ids=ids,
            attention_mask=torch.cat([present.new_ones(len(rows), shared), present], dim=1).long(),
            position_ids=position + shared,
            past_key_values=past,
            use_cache=True,
        ).last_hidden_state
        scored: torch.Tensor = causal_lm.lm_head(hidden[predicts]).float()
        return scored

    weight = (1.0 / predicts.sum(1, keepdim=True)).expand_as(ids)[predicts] / len(rows)
    if keeps:
        losses = _from_base(model, logits)
    else:
        losses = torch.nn.functional.cross_entropy(logits(), ids.roll(-1, dims=1)[predicts], reduction="none")
    return (losses * weight).sum()


def _divergence(model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> torch.Tensor:
    """Return the mean KL(base || tuned) a token over the texts, in nats."""
    encoded: Any = tokenizer(list(texts))
    rows = [torch.tensor(row) for row in encoded["input_ids"]]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    present = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return _from_base(model, lambda: model(input_ids=ids, attention_mask=present.long()).logits[present].float()).mean()


def _from_base(model: Any, logits: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Return KL(base || tuned) of each row of *logits*, (tokens, vocabulary), in nats: shape (tokens,)."""
    with torch.no_grad(), model.disable_adapter():
        before = logits().log_softmax(-1)
    after = logits().log_softmax(-1)
    return torch.nn.functional.kl_div(after, before, reduction="none", log_target=True).sum(-1)
