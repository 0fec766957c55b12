"""Measure the memory and the time that a prior's gradients take, next to the student and the teacher.

    python -m benchmarks.speed.prior_memory [--layers 4] [--width 1024] [--rows 16] [--pairs 2]

The model has a Llama's shape and random weights. The questions are harmful ones of the search split, each with an
answer of 48 tokens, and half of the channels of every other module have moved. Two ways take turns:

* ``whole gradients``: those of a pass, and their sum in float32, as it was until 0.1.
* ``channel sums``: each gradient is added up channel by channel as it appears, and dropped
  (safety_harness/search/priors/gradients.py).

A CPU keeps no account of memory, so every tensor that an operation makes is counted (tests/live_bytes.py). On a GPU
torch's own count is taken. The second table is arithmetic for Llama-2-7B, by what was measured here. Writes
``benchmarks/speed/prior_memory.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from tabulate import tabulate
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.speed.random_model import Noise, random_llama, texts_of, tokenizer_of
from safety_harness.models.generate import Generator
from safety_harness.models.load import _in_one_piece
from safety_harness.models.transplant import Transplanter, channels_of
from safety_harness.search.priors.gradients import HARMFUL, Row, by_channel, gains, gradients_as_they_come, logprob
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.units import Unit, cut
from tests.live_bytes import LiveBytes

HERE = Path(__file__).parent
ANSWER_TOKENS = 48
PASSES = 2
GIB = 2**30
# Llama-2-7B: parameters, those that may move, those of the largest tensor, layers and width, and rows and tokens of a
# backward pass as `safety-harness plan` has them.
SEVEN = {"parameters": 6.738e9, "movable": 6.476e9, "largest": 4096 * 11008, "layers": 32, "width": 4096}
SEVEN_TOKENS = 16 * (32 + ANSWER_TOKENS)
Gains = dict[str, torch.Tensor]


def whole_gradients(evaluator: Any, moved: Sequence[Unit], pieces: Iterator[torch.Tensor]) -> Gains:
    """Return the gains as until 0.1."""
    parameters = dict(evaluator.generator.model.named_parameters())
    names = list(dict.fromkeys(part.memory.name for unit in evaluator.units for part in unit.parts))
    with evaluator.transplanter.transplanted(moved):
        total = {name: torch.zeros_like(parameters[name], dtype=torch.float32) for name in names}
        with sdpa_kernel(SDPBackend.MATH):
            for piece in pieces:
                found = torch.autograd.grad(piece, [parameters[name] for name in names])
                for name, gradient in zip(names, found, strict=True):
                    total[name] += gradient.float()
    return {
        unit.module: torch.stack(
            [
                by_channel(
                    unit,
                    part,
                    channels_of(total[part.memory.name], part.memory) * evaluator.transplanter.difference(part),
                )
                for part in unit.parts
            ]
        )
        .sum(0)
        .cpu()
        for unit in evaluator.units
    }


WAYS: dict[str, Callable[..., Gains]] = {"whole gradients": whole_gradients, "channel sums": gains}


def pieces(evaluator: Any, rows: Sequence[Row]) -> Iterator[torch.Tensor]:
    """Yield the score of all rows, once a pass."""
    for _ in range(PASSES):
        yield logprob(evaluator, rows, HARMFUL).sum()


def held(evaluator: Any, rows: Sequence[Row], device: torch.device) -> int:
    """Return the bytes that one pass remembers for its backward pass, less those of log-probabilities."""
    model, kept = evaluator.generator.model, []
    names = [part.memory.name for unit in evaluator.units for part in unit.parts]
    with sdpa_kernel(SDPBackend.MATH), gradients_as_they_come(model, names, lambda *_: None):
        if device.type == "cuda":
            before = torch.cuda.memory_allocated()
            kept.append(next(pieces(evaluator, rows)))
            taken = torch.cuda.memory_allocated() - before
        else:
            with LiveBytes() as live:
                kept.append(next(pieces(evaluator, rows)))
            taken = live.now
    return taken - 4 * len(rows) * ANSWER_TOKENS * int(model.config.vocab_size)


def made(work: Callable[[], Any], device: torch.device) -> tuple[int, Any]:
    """Return the most bytes that were taken at one time during *work*, and its result."""
    if device.type != "cuda":
        with LiveBytes() as live:
            result = work()
        return live.most, result
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = work()
    return torch.cuda.max_memory_allocated() - before, result


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Return how long *work* computes: processor time on a CPU, where other processes may take turns."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    """Measure both ways, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"layers": 4, "width": 1024, "rows": 16, "pairs": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    evaluator = opened(options, device)
    model, generator = evaluator.generator.model, evaluator.generator
    texts = texts_of("harmful", options.rows)
    rows: list[Row] = [(generator.encode(text), [40 + at % 7] * ANSWER_TOKENS) for at, text in enumerate(texts)]
    moved = [cut(unit, range(0, unit.width, 2)) for unit in evaluator.units[::2]]

    def by(way: str) -> Gains:
        return WAYS[way](evaluator, moved, pieces(evaluator, rows))

    taken, found = {}, {}
    for way in WAYS:
        by(way)  # reads the teacher
        taken[way], found[way] = made(lambda way=way: by(way), device)  # type: ignore[misc]
    one, other = found.values()
    scale = max(float(gain.abs().max()) for gain in one.values())
    apart = max(float((one[module] - other[module]).abs().max()) for module in one) / scale
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for pair in range(options.pairs):
        for way in sorted(WAYS, reverse=bool(pair % 2)):
            times[way].append(seconds(lambda way=way: by(way), device))  # type: ignore[misc]
    shared = generator.shared_prefix([question for question, _ in rows], 0)
    read = len(rows) * (max(len(question) for question, _ in rows) - shared + ANSWER_TOKENS) + shared
    remembered = held(evaluator, rows, device) / (read * options.layers * options.width)
    page = report(options, model, evaluator.units, read, remembered, taken, times, apart)
    (HERE / "prior_memory.md").write_text(page, "utf-8")
    print(page)


def opened(options: argparse.Namespace, device: torch.device) -> Any:
    """Return what a prior needs of an evaluator: a random student, units, and a teacher near it."""
    model = random_llama(options.layers, options.width, device)
    model.get_output_embeddings().register_forward_pre_hook(_in_one_piece)  # as of every model that is loaded
    generator = Generator(model, tokenizer_of(texts_of("harmful", 64), 32000), batch_size=options.rows)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    units = enumerate_units(model.config.to_dict(), shapes)
    student = SimpleNamespace(id="random", family=SimpleNamespace(dtype="bfloat16"))
    return SimpleNamespace(
        generator=generator, units=units, transplanter=Transplanter(model, Noise(model)), student=student
    )


def report(
    options: argparse.Namespace,
    model: Any,
    units: Sequence[Unit],
    read: int,
    remembered: float,
    taken: dict[str, int],
    times: dict[str, list[float]],
    apart: float,
) -> str:
    """Return the page as Markdown."""
    movable = sum(unit.parameters for unit in units)
    base = times["whole gradients"]
    lines = [
        (
            way, f"{taken[way] / 2**20:.0f}", f"{taken[way] / movable:.1f}", f"{median(times[way]):.1f}",
            f"{median(a / b for a, b in zip(times[way], base, strict=True)):.2f}",
        )
        for way in WAYS
    ]  # fmt: skip
    passes = remembered * SEVEN_TOKENS * SEVEN["layers"] * SEVEN["width"]
    both = 2 * (SEVEN["parameters"] + SEVEN["movable"])
    seven = [
        ("student and teacher", both, both),
        ("gradients", 6 * SEVEN["movable"], 12 * SEVEN["largest"]),
        ("remembered by a backward pass", passes, passes),
    ]
    sums = ("together", *(sum(line[at] for line in seven) for at in (1, 2)))  # type: ignore[misc]
    named = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "one thread of a CPU"
    given = " ".join(f"--{name} {value}" for name, value in vars(options).items())
    return "\n\n".join(
        [
            "# The memory of a prior",
            f"`python -m benchmarks.speed.prior_memory {given}`",
            tabulate(lines, ("a gradient by", "MiB next to both models", "bytes a movable number", "seconds",
                             "times as long"), tablefmt="github", disable_numparse=True),
            "Llama-2-7B in bfloat16, GiB; answers of 48 tokens, 16 rows a pass:",
            tabulate([(name, f"{before / GIB:.1f}", f"{now / GIB:.1f}") for name, before, now in (*seven, sums)],
                     ("", "whole gradients", "channel sums"), tablefmt="github", disable_numparse=True),
            "\n".join(
                f"- {note}"
                for note in (
                    f"{movable / 1e6:.0f} million movable numbers in bfloat16 on {named}, torch {torch.__version__}; "
                    f"{read} tokens a pass, {PASSES} passes.",
                    f"Gains by the two ways differ by at most {apart:.0e} of the largest.",
                    f"A pass remembers {remembered:.0f} bytes for each token, layer and channel of the states.",
                )
            ),
        ]
    ) + "\n"  # fmt: skip


if __name__ == "__main__":
    main()
