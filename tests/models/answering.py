"""Questions for tiny models, and answers to them as tokens: by the harness, and by transformers alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safety_harness.models.decoding.sampling import uniform
from safety_harness.models.generate import Generator, Screen
from safety_harness.models.load import LoadedModel
from safety_harness.models.speedups import Speedups
from tests.builders import LONG, SHORT

Pairs = Callable[[str, bool], tuple[Path, Path]]
Answers = list[list[int]]

QUESTIONS = [LONG, SHORT, "what ?", "3 plus 4", f"{SHORT} {SHORT}", "i", LONG[::-1][:40]]
NEW = 14


def generator(loaded: LoadedModel, batch_size: int, speedups: Speedups | None = None) -> Generator:
    """Return a generator whose answers are lists of tokens in JSON: random answers are seldom valid UTF-8."""
    tokenizer = copy.copy(loaded.tokenizer)
    tokenizer.decode = lambda ids, **_options: json.dumps(ids)
    return Generator(loaded.model, tokenizer, batch_size=batch_size, speedups=speedups)


def tokens(
    asked: Generator, questions: Sequence[str] = QUESTIONS, new: int = NEW, screen: Screen | None = None
) -> Answers:
    """Return the answers of one of these generators as tokens."""
    return [json.loads(answer) for answer in asked.answers(questions, new, screen)]


def reference(loaded: LoadedModel, question: Sequence[int], new: int = NEW) -> list[int]:
    """Return transformers' own greedy answer to one question, unpadded, up to its end token."""
    ids = torch.tensor([list(question)])
    output: list[int] = loaded.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new
    )[0, ids.shape[1] :].tolist()
    stop = loaded.model.generation_config.eos_token_id
    ends = [i for i, token in enumerate(output) if token in (stop if isinstance(stop, list) else [stop])]
    return output[: ends[0]] if ends else output


def references(loaded: LoadedModel, questions: Sequence[str] = QUESTIONS, new: int = NEW) -> Answers:
    """Return transformers' own greedy answer to each question."""
    encode = generator(loaded, 1, Speedups.none()).encode
    return [reference(loaded, encode(question), new) for question in questions]


def by_definition(loaded: LoadedModel, row: Sequence[int], seed: int, temperature: float, new: int) -> list[int]:
    """Return an answer drawn as `decoding.sampling` says, by numpy, from passes that read everything again."""
    stops = loaded.model.generation_config.eos_token_id
    ends = stops if isinstance(stops, list) else [stops]
    answer: list[int] = []
    while len(answer) < new:
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([[*row, *answer]])).logits[0, -1].double().numpy()
        odds = np.exp((logits - logits.max()) / temperature)
        borders = np.cumsum(odds / odds.sum())
        token = int(np.flatnonzero(borders > uniform(seed, len(answer)) * borders[-1])[0])
        if token in ends:
            break
        answer.append(token)
    return answer


def count_passes(model: Any, monkeypatch: Any) -> list[int]:
    """Return a list to which every further pass of *model* appends the number of tokens that it reads."""
    read: list[int] = []
    forward = type(model).forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(kwargs["input_ids"].numel())
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", counted)
    return read
