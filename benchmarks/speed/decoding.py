"""What room in the cache and packed weights save in decoding, and that they change no answer.

    python -m benchmarks.speed.decoding [--student json] [--threads 1]

The held-out harmful questions of a smollm2 student with a seventh of the teacher's modules in it, answered in bfloat16
to the family's length; processor seconds, best of three interleaved rounds. Then a trap that was removed
(safety_harness/models/load.py): the vocabulary's product with the last states of eight rows, cut out of all of them,
with and without a gradient wanted of its weights, and laid out in one piece. Writes ``decoding.md``.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tabulate import tabulate
from transformers import DynamicCache

from benchmarks import command
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.models import generate
from safety_harness.models.decoding.kv_cache import packed_weights, preallocated_cache

ROUNDS = 3
TRAPPED_ROWS = 8


def plain_cache(config: Any) -> DynamicCache:
    return DynamicCache(config=config)


def plain_weights(_model: Any) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


WAYS: dict[str, tuple[Callable[[Any], DynamicCache], Callable[[Any], contextlib.AbstractContextManager[None]]]] = {
    "as transformers does": (plain_cache, plain_weights),
    "room in the cache": (preallocated_cache, plain_weights),
    "packed weights": (plain_cache, packed_weights),
    "both": (preallocated_cache, packed_weights),
}


def measure(evaluator: Evaluator) -> dict[str, tuple[float, list[str]]]:
    """Seconds and answers of every way."""
    questions, limit = evaluator.questions.harmful.report.texts, evaluator.student.family.max_new_tokens
    best: dict[str, tuple[float, list[str]]] = {}
    with evaluator.transplanter.transplanted(evaluator.units[::7]):
        for _ in range(ROUNDS):
            for name, (cache, weights) in WAYS.items():
                with (
                    mock.patch.object(generate, "preallocated_cache", cache),
                    mock.patch.object(generate, "packed_weights", weights),
                ):
                    start = time.process_time()
                    answers = evaluator.generator.answers(questions, limit)
                    seconds = time.process_time() - start
                best[name] = min(best.get(name, (seconds, answers)), (seconds, answers))
    return best


def trap(evaluator: Evaluator) -> list[tuple[str, str, int]]:
    """Seconds and page faults of the vocabulary's product: cut out states, the same in one piece."""
    head = evaluator.generator.model.get_output_embeddings()
    weight = head.weight.detach()
    states = torch.randn(TRAPPED_ROWS, 32, weight.shape[1]).to(weight.dtype)[:, -1:]
    found = []
    for name, wanted, given in (
        ("cut out, a gradient wanted of the weights", True, states),
        ("cut out, none wanted", False, states),
        ("in one piece, none wanted", False, states.contiguous()),
    ):
        weights = weight.clone().requires_grad_(wanted)
        with torch.inference_mode():
            start, faults = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.nn.functional.linear(given, weights)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        found.append((name, f"{time.process_time() - start:.3f}", faults))
    return found


def main() -> None:
    options = command.parser(__doc__).parse_args()
    evaluator = open_evaluator(command.chosen(options))
    found, trapped = measure(evaluator), trap(evaluator)
    usual, answers = found["as transformers does"]
    if any(said != answers for _, said in found.values()):
        raise SystemExit("The ways give different answers.")
    rows = [(name, f"{seconds:.1f}", f"{usual / seconds:.2f}") for name, (seconds, _) in found.items()]
    table = tabulate(rows, ("way", "seconds", "times as fast"), tablefmt="github", disable_numparse=True)
    text = (
        f"# Decoding\n\n`python -m benchmarks.speed.decoding --student {options.student} --threads {options.threads}`: "
        f"{len(answers)} answers, the same each way\n\n{table}\n\n"
        f"The vocabulary's product with the last states of {TRAPPED_ROWS} rows:\n\n"
        + tabulate(trapped, ("states and weights", "seconds", "page faults"), tablefmt="github", disable_numparse=True)
        + "\n"
    )
    (Path(__file__).parent / "decoding.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
