"""What a probe of a 7B-shaped model costs on a GPU, and how near to the GPU's own limits it comes.

    python -m benchmarks.speed.large_model [--layers 32] [--width 4096] [--questions 64] [--tokens 32]
        [--probes 4] [--fused]

Llama-2-7B's shape with random weights in bfloat16, and the questions of the search split that are in the repository.
A random model refuses nothing, so tokens are compared in place of verdicts. A probe moves other channels (3 % of the
parameters) into the student and asks so many harmful and so many harmless questions, a batch each. The ways, one after
the other for each probe:

* ``plain``: every tensor of the candidate is copied, and the model's own ``generate`` writes all tokens.
* ``made anew``: ours, every pass started kernel by kernel.
* ``recorded``: ours, passes of one token a row played from a recording (safety_harness/models/decoding/cuda_graphs.py).

The limits are measured in the same run: memory by a large copy (bytes read and written), arithmetic by a matrix
product. A pass of one token a row must read all weights but the embeddings, and the keys and values of its rows; to
read the questions is to multiply with every weight. Writes ``benchmarks/speed/large_model.md``.

With ``--fused``, torch.compile makes one kernel each of what norms, rotations and activations do in several. That
changes last bits and needs a compiler where the harness runs, so the harness does not; how much it would give is
written to ``benchmarks/speed/large_model_fused.md``.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from tabulate import tabulate
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from benchmarks import kept
from safety_harness.models.decoding.batch import pad_left
from safety_harness.models.decoding.cuda_graphs import GraphCache
from safety_harness.models.generate import Generator, agreed
from safety_harness.models.transplant import Transplanter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.units import Unit, cut

HERE = Path(__file__).parent
PROMPTS = HERE.parents[1] / "safety_harness" / "families" / "prompts"
ROUNDS = 5
SHARE = 0.03
SIDE = 8192
COPIED = 2**31  # bytes
TEMPLATE = (
    "{% for message in messages %}[INST] <<SYS>>\nYou are a helpful assistant.\n<</SYS>>\n\n"
    "{{ message['content'] | trim }} [/INST]{% endfor %}"
)

Tokens = list[list[int]]


class Noise:
    """A teacher near the student: each tensor is the student's and a little noise, the same whenever asked."""

    def __init__(self, model: Any) -> None:
        self._own = {name: parameter.data.clone() for name, parameter in model.named_parameters()}

    def tensor(self, name: str) -> torch.Tensor:
        own = self._own[name]
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
        generator = torch.Generator(own.device).manual_seed(seed)
        noisy: torch.Tensor = own + 0.002 * torch.randn(
            own.shape, generator=generator, device=own.device, dtype=own.dtype
        )
        return noisy


@dataclass
class Way:
    """Seconds of each probe, and its tokens."""

    seconds: list[float] = field(default_factory=list)
    said: list[Tokens] = field(default_factory=list)


def tokenizer_of(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """A tokenizer without an end token, trained on the questions: about as many tokens each as a real one makes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.chat_template = TEMPLATE
    return fast


def candidate(units: Sequence[Unit], seed: int) -> tuple[Unit, ...]:
    """A share of every unit's channels, others for another *seed*."""
    chance = random.Random(seed)
    return tuple(cut(unit, sorted(chance.sample(range(unit.width), max(1, int(SHARE * unit.width))))) for unit in units)


def texts_of(name: str, count: int) -> list[str]:
    texts = [row["text"] for row in kept.read(PROMPTS / f"{name}.search.jsonl")]
    if len(texts) < count:
        raise SystemExit(f"{name}.search.jsonl has {len(texts)} questions; ask for no more with --questions.")
    return texts[:count]


def fuse(model: Any) -> None:
    """Compile the small parts of *model*'s layers."""
    for kind in {type(module) for module in model.modules()}:
        if kind.__name__.endswith(("RMSNorm", "MLP")):
            kind.forward = torch.compile(kind.forward)
    code = sys.modules[type(model).__module__]
    code.apply_rotary_pos_emb = torch.compile(code.apply_rotary_pos_emb)  # type: ignore[attr-defined]


def finished(device: torch.device) -> float:
    """The time, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(run: Callable[[], Any], device: torch.device, rounds: int = ROUNDS) -> float:
    """Median seconds of *run*, the first time left out."""
    run()
    found = []
    for _ in range(rounds):
        start = finished(device)
        run()
        found.append(finished(device) - start)
    return median(found)


def limits(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Bytes a second that the memory moves, floating-point operations a second of a matrix product."""
    small = device.type == "cpu"
    source = torch.randint(0, 255, (COPIED // (16 if small else 1),), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = SIDE // (8 if small else 1)
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    copied = timed(lambda: target.copy_(source), device, 20)
    multiplied = timed(lambda: one @ other, device, 20)
    return 2 * source.numel() / copied, 2 * side**3 / multiplied


def decoded(generator: Generator, batches: Sequence[Tokens], new: int) -> Tokens:
    """Greedy tokens of every row, batch by batch."""
    with torch.inference_mode():
        return [row for batch in batches for row in generator._decode(batch, new)]


def generated(model: Any, batches: Sequence[Tokens], new: int) -> Tokens:
    found = []
    for batch in batches:
        tokens, mask = pad_left(batch, 0, model.device)
        with torch.inference_mode():
            said = model.generate(
                input_ids=tokens, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0
            )
        found += said[:, tokens.shape[1] :].tolist()
    return found


def linear_layers(model: Any, rows: int) -> float:
    """Seconds that the linear layers alone take with one token a row, one after the other as in a recorded pass."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    given = {
        width: torch.randn(rows, width, device=model.device, dtype=model.dtype)
        for width in {layer.in_features for layer in layers}
    }

    def run() -> None:
        for layer in layers:
            layer(given[layer.in_features])

    with torch.inference_mode():
        run()
        if model.device.type != "cuda":
            return timed(run, model.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return timed(graph.replay, model.device)


def alike(one: Sequence[Tokens], other: Sequence[Tokens]) -> float:
    """Share of tokens up to the first that differs, over all rows."""
    pairs = [(a, b) for first, second in zip(one, other, strict=True) for a, b in zip(first, second, strict=True)]
    return sum(agreed(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--fused", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16
    config = LlamaConfig(
        hidden_size=options.width, intermediate_size=options.width * 43 // 16, num_hidden_layers=options.layers,
        num_attention_heads=options.width // 128, num_key_value_heads=options.width // 128, vocab_size=32000,
        max_position_embeddings=4096, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    if options.fused:
        fuse(model)
    texts = [texts_of(kind, options.questions) for kind in ("harmful", "harmless")]
    tokenizer = tokenizer_of([text for some in texts for text in some], 8192)
    recorded, anew = (Generator(model, tokenizer, batch_size=options.questions) for _ in range(2))
    anew._recordings = None
    recorded._recordings = GraphCache(model)
    batches = [[recorded.encode(text) for text in some] for some in texts]
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    units = enumerate_units(config.to_dict() | {"model_type": "llama"}, shapes, None)
    transplanter = Transplanter(model, Noise(model))
    ways: dict[str, Callable[[], Tokens]] = {
        "plain": lambda: generated(model, batches, options.tokens),
        "made anew": lambda: decoded(anew, batches, options.tokens),
        "recorded": lambda: decoded(recorded, batches, options.tokens),
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
                if name == "recorded":
                    switches.append(finished(device) - start)
                probes[name].said.append(run())
            probes[name].seconds.append(finished(device) - start)
    again = decoded_with(transplanter, patches[-1], ways["recorded"])
    text = report(options, model, probes, switches, first, again, batches, anew, recorded, limits(device, dtype))
    (HERE / f"large_model{'_fused' * options.fused}.md").write_text(text, encoding="utf-8")
    print(text)


def decoded_with(transplanter: Transplanter, patch: Sequence[Unit], run: Callable[[], Tokens]) -> Tokens:
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
    anew: Generator,
    recorded: Generator,
    measured: tuple[float, float],
) -> str:
    device = model.device
    bandwidth, rate = measured
    weights = sum(parameter.numel() for parameter in model.parameters())
    embeddings = model.get_input_embeddings().weight.numel()
    rows, (batch, _) = options.questions, batches
    prompt = sum(map(len, batch))
    layers, width = options.layers, options.width
    column = 2 * 2 * layers * width  # bytes of a token's keys and values
    first_reading, reading = (timed(partial(decoded, one, [batch], 1), device) for one in (anew, recorded))
    shared = recorded._shared(batch, 1)
    padded = rows * (max(map(len, batch)) - shared) + shared
    arithmetic = 2 * ((weights - 2 * embeddings) * padded + embeddings * rows)
    plain = probes["plain"].seconds
    lines, passes = [], []
    for name, way in probes.items():
        ratio = median(a / b for a, b in zip(plain, way.seconds, strict=True))
        lines.append((name, f"{mean(way.seconds):.3f}", f"{60 / mean(way.seconds):.0f}", f"{ratio:.2f}",
                      f"{alike(way.said, probes['made anew'].said):.0%}"))  # fmt: skip
    for name, generator, left, start in (
        ("made anew", anew, rows, first_reading),
        *(("recorded", recorded, rows // part, None) for part in (1, 2, 4, 8) if rows >= part),
    ):
        some = batch[:left]
        if start is None:
            start = timed(partial(decoded, recorded, [some], 1), device)
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
        f"The same probe again says the same tokens: {'yes' if again == probes['recorded'].said[-1] else 'NO'}.",
        f"Reading a batch of questions takes {1000 * reading:.0f} ms, {1000 * first_reading:.0f} ms without a "
        f"recording of what they all begin with: {arithmetic / reading / 1e12:.0f} TFLOP/s, "
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
                             "tokens before the first other than of passes made anew"),
                     tablefmt="github", disable_numparse=True),
            tabulate(passes, ("passes", "rows", "ms a pass", "ms that memory needs", "share"), tablefmt="github",
                     disable_numparse=True),
            "\n".join(f"- {note}" for note in notes),
        ]
    ) + "\n"  # fmt: skip


if __name__ == "__main__":
    main()
