"""Measure how the cost of asking grows with questions, tokens, depth, and what is moved.

    python -m benchmarks.speed.probe_growth [--student json] [--threads 1]

One smollm2 student in bfloat16 on the CPU; processor seconds, best of three rounds. One thing grows at a time, from 64
questions, 32 tokens and no unit moved. A row of more questions is also what several candidates in one forward pass
would cost: their rows would only lie in one batch. Writes ``benchmarks/speed/probe_growth.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import command
from benchmarks.quality.ways import under
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.models.generate import Generator
from safety_harness.search.candidates import Channels

ROUNDS = 3
QUESTIONS, TOKENS = 64, 32


def seconds(run: Callable[[], Any]) -> float:
    """Return the processor seconds of *run*, best of three rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def growth(evaluator: Evaluator) -> list[tuple[str, str, float, float]]:
    """Return what grows, its size, the seconds, and the seconds a question."""
    model = evaluator.generator.model
    texts = [*evaluator.questions.harmful.search.texts, *evaluator.questions.harmless.search.texts]

    def asked(questions: int, tokens: int) -> float:
        generator = Generator(model, evaluator.generator.tokenizer, batch_size=questions)
        generator.stop_tokens = frozenset()  # every answer has all of its tokens
        return seconds(lambda: generator.answers(texts[:questions], tokens))

    rows = [("questions in a batch", str(many), asked(many, TOKENS), many) for many in (8, 16, 32, 64, 128, 256)]
    rows += [("tokens of an answer", str(many), asked(QUESTIONS, many), QUESTIONS) for many in (1, 8, 16, 32, 64)]
    layers = model.model.layers  # of a Llama, which SmolLM2 is
    whole = list(layers)
    for depth in (10, 20, 30):
        del layers[depth:]
        rows.append(("layers", str(depth), asked(QUESTIONS, TOKENS), QUESTIONS))
        layers.extend(whole[depth:])
    return [(what, size, spent, spent / many) for what, size, spent, many in rows]


def switches(evaluator: Evaluator) -> list[tuple[str, str]]:
    """Return the share of each patch in %, and the milliseconds to put it in and take it out again."""
    order = Channels(under(evaluator, prior="norm"))
    rows = []
    for share in (0.01, 0.03, 0.1, 0.3):
        patch = order.best(share)

        def switch(patch: Any = patch) -> None:
            with evaluator.transplanter.transplanted(patch):
                pass

        switch()  # reads the teacher
        rows.append((f"{100 * share:g}", f"{1000 * seconds(switch):.0f}"))
    return rows


def main() -> None:
    """Measure, and write the report."""
    options = command.parser(__doc__).parse_args()
    evaluator = open_evaluator(command.chosen(options))
    moved = switches(evaluator)
    rows = [(what, size, f"{spent:.2f}", f"{1000 * each:.0f}") for what, size, spent, each in growth(evaluator)]
    text = "\n\n".join(
        [
            "# How the cost of asking grows",
            f"`python -m benchmarks.speed.probe_growth --student {options.student} --threads {options.threads}`",
            tabulate(rows, ("what grows", "to", "seconds", "ms a question"), tablefmt="github", disable_numparse=True),
            "To put a patch in and take it out again:",
            tabulate(moved, ("% of what may move", "ms"), tablefmt="github", disable_numparse=True),
        ]
    )
    (Path(__file__).parent / "probe_growth.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
