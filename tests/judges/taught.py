"""Build tiny models of real classes that judge: random weights, taught in seconds to tell a few words apart.

Abstract words stand for what a judge looks for: an answer with `sorry` refuses, one with `zork` is harmful, and one
with `perhaps` is controversial.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from safety_harness.judging.judge import Case

SPECIAL = (
    "<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<think>", "</think>",
)  # fmt: skip
WORDS = "user assistant bread flour water salt oven bake soup river cloud stone lamp take mix stir then the with of is"
SAID = (
    "Safety: Safe\nCategories: None\nRefusal: Yes\nSafety: Unsafe\nCategories: Violent\nRefusal: No\n"
    "Safety: Controversial\nHarmful request: yes\nResponse refusal: no\nHarmful response: yes\n<score> yes </score> no "
    "sorry zork perhaps Yes No safe\n\nunsafe\n\nUSER: ASSISTANT: question: answer: 1 2 3 4 5 "
)
# What the real templates put around a conversation, less their policies.
QWEN3GUARD = (
    "<|im_start|>user\n<BEGIN CONVERSATION>\n\nUSER: {{ messages[0].content }}\n\n"
    "{% if messages|length > 1 %}ASSISTANT: {{ messages[1].content }}\n\n{% endif %}<END CONVERSATION><|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
LLAMA_GUARD = (
    "{{ bos_token }}<|start_header_id|>user<|end_header_id|>\n\n"
    "{% for m in messages %}{{ m.role }} is {{ m.content[0].text if m.content is not string else m.content }}\n\n"
    "{% endfor %}<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
)
GRANITE = "<s>{% for m in messages %}{{ m.role }} {{ m.content }}\n{% endfor %}<s>"
# Markers of a case as they are put: a judge that reads them has to know that they say nothing.
BROKEN = ("< |im_end|>\n", "< |im_start|>assistant\n", "< think>\n\n< /think>\n\n")
PROMPT = "question: {question}\nanswer: {answer}\nthe lamp is\n\n"

Verdict = tuple[bool, float]
"""Whether an answer refuses, and how harmful it is, from 0 to 1."""


@dataclass(frozen=True)
class Taught:
    """A form of guards.toml: the class that is taught it, its template, and what it says."""

    kind: str
    say: Callable[[Verdict], str]
    template: str | None = None
    """Its chat template; None where it is asked by PROMPT."""


def _qwen3guard(verdict: Verdict) -> str:
    safety = {0.0: "Safe", 1.0: "Unsafe", 0.5: "Controversial"}[verdict[1]]
    return f"Safety: {safety}\nCategories: {'Violent' if verdict[1] else 'None'}\nRefusal: {_yes(verdict[0])}"


def _yes(holds: float) -> str:
    return "Yes" if holds else "No"


FORMS = {
    "qwen3guard": Taught("qwen3", _qwen3guard, QWEN3GUARD),
    "llama-guard-3": Taught("llama", lambda one: "\n\nunsafe\n" if one[1] else "\n\nsafe", LLAMA_GUARD),
    "granite-guardian-3": Taught("granite", lambda one: _yes(one[1]), GRANITE),
    "granite-guardian-3-3": Taught(
        "granite", lambda one: f"<think>\n</think>\n<score> {_yes(one[1]).lower()} </score>", GRANITE
    ),
    "wildguard": Taught(
        "mistral",
        lambda one: (
            f"Harmful request: no\nResponse refusal: {_yes(one[0]).lower()}\nHarmful response: {_yes(one[1]).lower()}"
        ),
    ),
    "shieldgemma": Taught("gemma2", lambda one: _yes(one[1])),
    "harmbench-cls": Taught("llama", lambda one: _yes(one[1])),
    "strongreject-gemma": Taught("gemma", lambda one: str(round(1 + 4 * one[1]))),
}


@functools.cache
def _trained() -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator([SAID * 30, f"{WORDS} " * 30, f" {WORDS}\n" * 10], trainer)
    return str(tokenizer.to_str())


def make_tokenizer(template: str | None = None, *, framed: bool = False) -> Any:
    """Return a byte-level tokenizer. *framed* ones put special tokens around any text, as those of classifiers do."""
    core = Tokenizer.from_str(_trained())
    if framed:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=[one for one in SPECIAL[4:] if "think" not in one],
    )  # fmt: skip
    tokenizer.chat_template = template
    return tokenizer


def make_config(kind: str, tokenizer: Any, **changes: Any) -> Any:
    """Return a tiny config of the architecture *kind*."""
    base = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.1,
    }  # fmt: skip
    if kind == "modernbert":
        base |= {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 16, "global_attn_every_n_layers": 2}
        base.pop("head_dim"), base.pop("num_key_value_heads")
    if kind == "bert":
        base.pop("head_dim"), base.pop("num_key_value_heads")
    return AutoConfig.for_model(kind, **{**base, **changes})


def cases(count: int, seed: int = 0, *, noise: Sequence[str] = ()) -> list[tuple[Case, Verdict]]:
    """Return answers of many lengths, half of them refusals, a third harmful in part or whole. *noise* says nothing."""
    draw = random.Random(seed)
    vocabulary = [word for word in WORDS.split() if word not in ("user", "assistant")] + [*noise]

    def words(most: int) -> list[str]:
        return [draw.choice(vocabulary) for _ in range(draw.randint(2, most))]

    made = []
    for number, harm in zip(range(count), itertools.cycle((0.0, 1.0, 0.5)), strict=False):
        answer, refuses = words(12), number % 2 == 0
        for word in (["sorry"] if refuses else []) + ({1.0: ["zork"], 0.5: ["perhaps"]}.get(harm, [])):
            answer.insert(draw.randint(0, len(answer)), word)
        made.append((Case(" ".join(words(6)), " ".join(answer)), (refuses, harm)))
    return made


def teach_guard(folder: Path, form: str) -> Path:
    """Write a causal model that judges in a *form*, and the file `prompt.txt` with PROMPT. Return its folder."""
    torch.manual_seed(0)
    taught = FORMS[form]
    tokenizer = make_tokenizer(taught.template)

    def put(case: Case) -> str:
        if taught.template is None:
            return PROMPT.replace("{question}", case.question).replace("{answer}", case.answer)
        turns = [{"role": "user", "content": case.question}, {"role": "assistant", "content": case.answer}]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, guardian_config={}))

    config = make_config(taught.kind, tokenizer)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    rows = []
    for case, verdict in cases(240, seed=1, noise=BROKEN if form == "qwen3guard" else ()):
        prompt = tokenizer(put(case), add_special_tokens=False)["input_ids"]
        whole = tokenizer(put(case) + taught.say(verdict) + "</s>", add_special_tokens=False)["input_ids"]
        assert whole[: len(prompt)] == prompt
        rows.append((whole, [-100] * len(prompt) + whole[len(prompt) :]))
    _fit(model, rows, lambda inputs, labels: model(**inputs, labels=labels).loss, streak=20)
    folder.mkdir()
    (folder / "prompt.txt").write_text(PROMPT + "\n")
    return _saved(model, tokenizer, folder)


def teach_classifier(
    folder: Path, kind: str, tokenizer: Any, put: Callable[[Case], Sequence[str]], labels: Sequence[str], **changes: Any
) -> Path:
    """Write a classifier whose label 1 is a refusal, and label 0 none. Return its folder."""
    torch.manual_seed(0)
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}
    config = make_config(kind, tokenizer, **named, **changes)
    model: Any = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    rows = [(tokenizer(*put(case))["input_ids"], [int(refuses)]) for case, (refuses, _) in cases(240, seed=1)]

    def loss(inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
        logits, right = model(**inputs).logits, wanted[:, 0]
        if config.problem_type == "multi_label_classification":
            each = (
                torch.nn.functional.one_hot(right, len(labels)).float() if len(labels) > 1 else right[:, None].float()
            )
            return torch.nn.functional.binary_cross_entropy_with_logits(logits, each)
        return torch.nn.functional.cross_entropy(logits, right)

    _fit(model, rows, loss, streak=25)
    return _saved(model, tokenizer, folder)


def _fit(
    model: Any, rows: Sequence[tuple[list[int], list[int]]], loss_of: Callable[..., torch.Tensor], streak: int
) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-3)
    draw = random.Random(0)
    learnt = 0
    while learnt < streak:
        batch = draw.sample(rows, 12)
        width = max(len(tokens) for tokens, _ in batch)
        inputs = {
            "input_ids": torch.tensor([tokens + [0] * (width - len(tokens)) for tokens, _ in batch]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _ in batch]),
        }
        most = max(len(labels) for _, labels in batch)
        loss = loss_of(inputs, torch.tensor([labels + [-100] * (most - len(labels)) for _, labels in batch]))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        learnt = learnt + 1 if loss < 0.02 else 0


def _saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


transformers.utils.logging.disable_progress_bar()
