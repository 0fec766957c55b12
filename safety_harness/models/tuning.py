"""Tune a model in memory by low-rank adapters for some steps, and take them out of it again bit for bit.

peft puts the adapters in, as whoever downloads the weights would. They stand next to the weights, which are never
written to. So nothing has to be copied and restored, whatever the size of the model.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from safety_harness.errors import NotFinite, SourceError, missing_extra
from safety_harness.models.generate import Generator
from safety_harness.models.likelihood import next_logprobs
from safety_harness.models.read import reason

# What tutorials and libraries of LoRA tuning take, because the question is what an ordinary tuning does: rank 8 on
# every linear layer, twice the rank as alpha, and 2e-4 without a schedule, so that ten steps are the first ten of a
# hundred. At higher rates refusals vanish sooner, in the same order of models (benchmarks/quality/tamper.md).
RANK = 8
ALPHA = 16
LEARNING_RATE = 2e-4
BATCH = 8
LARGEST_GRADIENT = 1.0
SEED = 0
RECIPE = f"LoRA of rank {RANK} on all linear layers, AdamW at {LEARNING_RATE:g}, batches of {BATCH}, seed {SEED}"
"""How a model is tuned, in words."""

Row = tuple[Sequence[int], int]
"""The tokens of a question with its answer, and the place where the answer begins."""


class Tuning:
    """A model under tuning on *rows*. ``generator`` answers with the model as tuned so far."""

    def __init__(
        self, generator: Generator, adapters: Sequence[torch.nn.Parameter], rows: Sequence[Row], rate: float
    ) -> None:
        self.generator = generator
        self.steps = 0
        self.adapters = adapters
        self._optimizer = torch.optim.AdamW(adapters, lr=rate, weight_decay=0.0)
        self._rows = _endless(rows)

    def step(self) -> float:
        """Tune on the next batch, and return its mean loss before that: nats a token.

        Raises:
            NotFinite: the loss is a NaN or an infinity.
        """
        rows = list(itertools.islice(self._rows, BATCH))
        # The backward pass of torch's flash attention takes a quarter longer on a CPU than the plain one.
        with sdpa_kernel(SDPBackend.MATH):
            logprobs, tokens, counted = next_logprobs(
                self.generator, [row for row, _ in rows], [start for _, start in rows]
            )
            loss = -(logprobs.gather(-1, tokens[..., None])[..., 0] * counted).sum() / counted.sum()
            if not loss.isfinite():
                raise NotFinite(f"A NaN or an infinity comes out of the model after {self.steps} steps of tuning.")
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        torch.nn.utils.clip_grad_norm_(self.adapters, LARGEST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.steps += 1
        return float(loss.detach())


@contextlib.contextmanager
def tuning(generator: Generator, rows: Sequence[Row], rate: float = LEARNING_RATE) -> Iterator[Tuning]:
    """Run a block in which the model of *generator* can be tuned on *rows*, and restore it even if the block raises.

    Raises:
        HarnessError: peft is not installed.
        SourceError: peft has no adapters for this model.
    """
    generator.forget()  # gradients need all the memory there is, and a CUDA graph knows no adapters
    own = copy.copy(generator)  # whose batches may be halved without those of the measurements
    own.speedups = replace(generator.speedups, graphs=None)
    with _adapted(generator.model) as adapters:
        yield Tuning(own, adapters, rows, rate)


@contextlib.contextmanager
def _adapted(model: Any) -> Iterator[list[torch.nn.Parameter]]:
    """Yield the parameters of low-rank adapters on every linear layer of *model* but its head, for a block."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise missing_extra("peft", "adapters", "Tuning a student") from error
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    own = list(model.parameters())
    with contextlib.ExitStack() as undo:
        undo.callback(vars(model).pop, "peft_config", None)
        for parameter in own:
            undo.callback(parameter.requires_grad_, parameter.requires_grad)
        # peft puts a layer of its own in place of each one. Whatever it has replaced when it fails comes back too.
        for parent in list(model.modules()):
            for name, child in parent.named_children():
                undo.callback(setattr, parent, name, child)
        devices = list(range(torch.cuda.device_count()))
        with torch.random.fork_rng(devices), warnings.catch_warnings(action="ignore"):
            torch.manual_seed(SEED)
            try:
                inject_adapter_in_model(config, model)
            except Exception as error:  # peft raises many kinds for a layer that it does not know
                raise SourceError(
                    f"{model.name_or_path}: peft cannot put adapters into it ({reason(error)}). Leave --tamper out."
                ) from error
        known = {id(parameter) for parameter in own}
        yield [parameter for parameter in model.parameters() if id(parameter) not in known]


def _endless(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield *rows* without end, each pass in another order, always in the same orders."""
    shuffler, order = random.Random(SEED), list(rows)
    while True:
        shuffler.shuffle(order)
        yield from list(order)
