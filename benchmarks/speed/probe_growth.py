"""How the cost of asking grows with questions, tokens, what is moved, and depth.

    python -m benchmarks.speed.probe_growth [--student json] [--threads 1]

One smollm2 student in bfloat16 on the CPU, processor seconds, best of three rounds, each thing in turn while the others
stay at 64 questions, 32 tokens and no unit moved. A row of more questions in one batch is also what many candidates in
one forward pass would cost: their rows only lie in one batch. Writes ``benchmarks/speed/probe_growth.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safety_harness.models.decoding.prefill_cache import layers_of
from tabulate import tabulate

from benchmarks import command
from benchmarks.quality.methods import under
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.models.generate import Generator
from safety_harness.search.candidates import Channels

ROUNDS = 3
QUESTIONS, TOKENS = 64, 32


def seconds(run: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def growth(evaluator: Evaluator) -> list[tuple[str, str, float, float]]:
    """What grows, how large it is, seconds, and seconds a question."""
    model = evaluator.generator.model
    model.generation_config.eos_token_id = None  # every answer has all of its tokens
    texts = [*evaluator.questions.harmful.search.texts, *evaluator.questions.harmless.search.texts]

    def asked(questions: int, tokens: int) -> float:
        generator = Generator(model, evaluator.generator.tokenizer, batch_size=questions)
        generator._stop = frozenset()
        return seconds(lambda: generator.answers(texts[:questions], tokens))

    rows = [("questions in a batch", str(many), asked(many, TOKENS), many) for many in (8, 16, 32, 64, 128, 256)]
    rows += [("tokens of an answer", str(many), asked(QUESTIONS, many), QUESTIONS) for many in (1, 8, 16, 32, 64)]
    layers = list(layers_of(model))
    for depth in (10, 20, 30):
        del layers_of(model)[depth:]
        rows.append(("layers", str(depth), asked(QUESTIONS, TOKENS), QUESTIONS))
        layers_of(model).extend(layers[depth:])
    return [(what, size, spent, spent / many) for what, size, spent, many in rows]


def switches(evaluator: Evaluator) -> list[tuple[str, str]]:
    """Of patches of growing size, what it takes to put one in and take it out again."""
    order = Channels(under(evaluator, prior="norm"))
    found = []
    for share in (0.01, 0.03, 0.1, 0.3):
        patch = order.best(share)

        def switch(patch: Any = patch) -> None:
            with evaluator.transplanter.transplanted(patch):
                pass

        switch()  # reads the teacher
        found.append((f"{100 * share:g}", f"{1000 * seconds(switch):.0f}"))
    return found


def main() -> None:
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
