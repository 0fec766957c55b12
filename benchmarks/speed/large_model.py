"""Time a probe of a 7B-shaped model on a GPU, and compare it with the GPU's own limits.

    python -m benchmarks.speed.large_model [--layers 32] [--width 4096] [--questions 64] [--tokens 32]
        [--probes 4] [--fused]

The model has Llama-2-7B's shape and random weights in bfloat16. The questions are those of the search split that are in
the repository. A random model refuses nothing, so tokens are compared instead of verdicts. Each probe moves other
channels (3 % of the parameters) into the student. It asks --questions harmful and as many harmless questions, a batch
each. The ways, one after another for each probe:

* ``plain``: every tensor of the candidate is copied, and the model's own ``generate`` writes all tokens.
* ``without graphs``: ours, every pass started kernel by kernel.
* ``with graphs``: ours, passes of one token a row replayed from CUDA graphs
  (safety_harness/models/decoding/cuda_graphs.py).

The limits are measured in the same run: memory by a large copy (bytes read and written), arithmetic by a matrix
product. A pass of one token a row must read all weights but the embeddings, and the keys and values of its rows. To
read the questions is to multiply with every weight. Writes ``benchmarks/speed/large_model.md``.

With ``--fused``, torch.compile makes one kernel each of what norms, rotations and activations do in several. That
changes last bits and needs a compiler where the harness runs, so the harness does not. Its gain is written to
``benchmarks/speed/large_model_fused.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from tabulate import tabulate

from benchmarks.speed.random_model import Noise, candidate, fuse, random_llama, texts_of, tokenizer_of
from safety_harness.models.decoding.batch import PAD, pad_left
from safety_harness.models.decoding.cuda_graphs import GraphCache
from safety_harness.models.decoding.drafts import accepted
from safety_harness.models.generate import Generator
from safety_harness.models.speedups import Speedups
from safety_harness.models.transplant import Transplanter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.units import Unit

HERE = Path(__file__).parent
ROUNDS = 5
# Large enough for the full rate of a GPU; a CPU gets smaller ones.
MATRIX_SIDE = 8192
COPIED_BYTES = 2**31
Tokens = list[list[int]]


@dataclass
class Way:
    """The seconds of each probe, and its tokens."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[Tokens] = field(default_factory=list)


def finished(device: torch.device) -> float:
    """Return the time, once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(run: Callable[[], Any], device: torch.device, rounds: int = ROUNDS) -> float:
    """Return the median seconds of *run*, without its first time."""
    run()
    seconds = []
    for _ in range(rounds):
        start = finished(device)
        run()
        seconds.append(finished(device) - start)
    return median(seconds)


def limits(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Return the bytes a second that the memory moves, and the operations a second of a matrix product."""
    small = device.type == "cpu"
    source = torch.randint(0, 255, (COPIED_BYTES // (16 if small else 1),), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = MATRIX_SIDE // (8 if small else 1)
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    copied = timed(lambda: target.copy_(source), device, 20)
    multiplied = timed(lambda: one @ other, device, 20)
    return 2 * source.numel() / copied, 2 * side**3 / multiplied


def decoded(generator: Generator, batches: Sequence[Tokens], new: int) -> Tokens:
    """Return the greedy tokens of every row, batch by batch."""
    return [row for batch in batches for row in generator.decode(batch, new)]


def generated(model: Any, batches: Sequence[Tokens], new: int) -> Tokens:
    """Return the tokens of the model's own ``generate``, batch by batch."""
    rows: Tokens = []
    for batch in batches:
        tokens, mask = pad_left(batch, model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=tokens, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=PAD
            )
        rows += output[:, tokens.shape[1] :].tolist()
    return rows


def linear_layers(model: Any, rows: int) -> float:
    """Return the seconds of the linear layers alone with one token a row, one after another as in a replayed pass."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    inputs = {
        width: torch.randn(rows, width, device=model.device, dtype=model.dtype)
        for width in {layer.in_features for layer in layers}
    }

    def run() -> None:
        for layer in layers:
            layer(inputs[layer.in_features])

    with torch.inference_mode():
        run()
        if model.device.type != "cuda":
            return timed(run, model.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return timed(graph.replay, model.device)


def agreement(one: Sequence[Tokens], other: Sequence[Tokens]) -> float:
    """Return the share of tokens before the first that differs, over all rows."""
    pairs = [(a, b) for first, second in zip(one, other, strict=True) for a, b in zip(first, second, strict=True)]
    return sum(accepted(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)


def main() -> None:
    """Probe in every way, measure the limits, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--fused", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = random_llama(options.layers, options.width, device)
    if options.fused:
        fuse(model)
    texts = [texts_of(kind, options.questions) for kind in ("harmful", "harmless")]
    tokenizer = tokenizer_of([text for some in texts for text in some], 8192)
    speedups = replace(Speedups.for_model(model), graphs=None)
    without, graphed = (
        Generator(model, tokenizer, batch_size=options.questions, speedups=replace(speedups, graphs=graphs))
        for graphs in (None, GraphCache(model))
    )
    batches = [[graphed.encode(text) for text in some] for some in texts]
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    units = enumerate_units(model.config.to_dict() | {"model_type": "llama"}, shapes, None)
    transplanter = Transplanter(model, Noise(model))
    ways: dict[str, Callable[[], Tokens]] = {
        "plain": lambda: generated(model, batches, options.tokens),
        "without graphs": lambda: decoded(without, batches, options.tokens),
        "with graphs": lambda: decoded(graphed, batches, options.tokens),
    }
    patches = [candidate(units, seed) for seed in range(options.probes)]
    start = finished(device)
    with transplanter.transplanted(patches[0]):  # reads the teacher, once
        first = finished(device) - start
        for run in ways.values():
            run()
    probes = {name: Way() for name in ways}
    switches = []
    for patch in patches:
        for name, run in ways.items():
            start = finished(device)
            with transplanter.transplanted(patch):
                if name == "with graphs":
                    switches.append(finished(device) - start)
                probes[name].tokens.append(run())
            probes[name].seconds.append(finished(device) - start)
    again = decoded_with(transplanter, patches[-1], ways["with graphs"])
    text = report(
        options, model, probes, switches, first, again, batches, without, graphed, limits(device, model.dtype)
    )
    (HERE / f"large_model{'_fused' * options.fused}.md").write_text(text, encoding="utf-8")
    print(text)


def decoded_with(transplanter: Transplanter, patch: Sequence[Unit], run: Callable[[], Tokens]) -> Tokens:
    """Return the tokens of *run* with *patch* moved."""
    with transplanter.transplanted(patch):
        return run()


def report(
    options: argparse.Namespace,
    model: Any,
    probes: dict[str, Way],
    switches: Sequence[float],
    first: float,
    again: Tokens,
    batches: Sequence[Tokens],
    without: Generator,
    graphed: Generator,
    measured: tuple[float, float],
) -> str:
    """Return the report as Markdown."""
    device = model.device
    bandwidth, rate = measured
    weights = sum(parameter.numel() for parameter in model.parameters())
    embeddings = model.get_input_embeddings().weight.numel()
    rows, (batch, _) = options.questions, batches
    prompt = sum(map(len, batch))
    layers, width = options.layers, options.width
    column = 2 * 2 * layers * width  # bytes of a token's keys and values
    first_reading, reading = (timed(partial(decoded, one, [batch], 1), device) for one in (without, graphed))
    shared = graphed.shared_prefix(batch, 1)
    padded = rows * (max(map(len, batch)) - shared) + shared
    arithmetic = 2 * ((weights - 2 * embeddings) * padded + embeddings * rows)
    plain = probes["plain"].seconds
    lines, passes = [], []
    for name, way in probes.items():
        ratio = median(a / b for a, b in zip(plain, way.seconds, strict=True))
        lines.append((name, f"{mean(way.seconds):.3f}", f"{60 / mean(way.seconds):.0f}", f"{ratio:.2f}",
                      f"{agreement(way.tokens, probes['without graphs'].tokens):.0%}"))  # fmt: skip
    for name, generator, left, start in (
        ("without graphs", without, rows, first_reading),
        *(("with graphs", graphed, rows // part, None) for part in (1, 2, 4, 8) if rows >= part),
    ):
        some = batch[:left]
        if start is None:
            start = timed(partial(decoded, graphed, [some], 1), device)
        whole = timed(partial(decoded, generator, [some], 1 + options.tokens), device)
        step = (whole - start) / options.tokens
        floor = (2 * (weights - embeddings) + column * (sum(map(len, some)) + left * options.tokens / 2)) / bandwidth
        passes.append((name, left, f"{1000 * step:.2f}", f"{1000 * floor:.2f}", f"{floor / step:.0%}"))
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    given = f"--layers {layers} --width {width} --questions {rows} --tokens {options.tokens} --probes {options.probes}"
    given += " --fused" * options.fused
    notes = [
        f"{weights / 1e9:.2f} billion parameters on {named}, torch {torch.__version__}; {prompt / rows:.0f} tokens a "
        f"question, of which all share {shared}.",
        f"Putting in another candidate takes {1000 * median(switches):.0f} ms; the first, which reads the teacher, "
        f"{first:.1f} s.",
        f"The same probe again gives the same tokens: {'yes' if again == probes['with graphs'].tokens[-1] else 'NO'}.",
        f"Reading a batch of questions takes {1000 * reading:.0f} ms, {1000 * first_reading:.0f} ms without a "
        f"graph of their common beginning: {arithmetic / reading / 1e12:.0f} TFLOP/s, "
        f"{arithmetic / reading / rate:.0%} of the {rate / 1e12:.0f} of a large matrix product.",
        f"The linear layers alone take {1000 * linear_layers(model, rows):.2f} ms with one token of {rows} rows.",
        f"Memory moves {bandwidth / 1e12:.2f} TB/s.",
    ]
    if device.type == "cuda":
        notes.append(f"Most memory that was taken: {torch.cuda.max_memory_allocated(device) / 2**30:.0f} GiB.")
    return "\n\n".join(
        [
            "# A probe of a 7B-shaped model",
            f"`python -m benchmarks.speed.large_model {given}`",
            tabulate(lines, ("a probe by", "seconds (mean)", "probes a minute", "times as fast as plain",
                             "tokens before the first that differs from those without graphs"),
                     tablefmt="github", disable_numparse=True),
            tabulate(passes, ("passes", "rows", "ms a pass", "ms that memory needs", "share"), tablefmt="github",
                     disable_numparse=True),
            "\n".join(f"- {note}" for note in notes),
        ]
    ) + "\n"  # fmt: skip


if __name__ == "__main__":
    main()
