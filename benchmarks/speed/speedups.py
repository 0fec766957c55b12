"""Time decoding with each speedup left out, and a whole search with and without drafts.

    python -m benchmarks.speed.speedups [--student json] [--threads 1] [--rounds 5]

A smollm2 student with a seventh of the teacher's modules answers one batch of the search's harmful questions in
bfloat16. Answers are cut off at the family's screen, as in a probe. Each part is timed against all parts in the same
rounds, in turns, in processor seconds. Answers must be the same each way. A common beginning that is read once is
exempt: in bfloat16 it changes the shape of a pass. Drafts serve float32 alone, so they are counted in whole searches of
two tiny students. Writes ``benchmarks/speed/speedups.md``.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

from benchmarks import command
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.judging.judge import Verdict
from safety_harness.models.generate import Screen
from safety_harness.registry.load import load_registry
from safety_harness.search.reduce import search

# A part's name in the report -> the speedup's value without it, and whether every answer must stay the same.
PARTS: dict[str, tuple[dict[str, Any], bool]] = {
    "preallocated columns": ({"preallocated": False}, True),
    "packed weights": ({"packed": False}, True),
    "a common beginning read once": ({"min_prefill_tokens_saved": None}, False),
}
SEARCHED = (("tiny-llama", "arithmetic"), ("tiny-mistral", "sort"))


def timed(evaluator: Evaluator, speedups: Any) -> tuple[float, list[str]]:
    """Return the processor seconds and the answers of one batch with these speedups."""
    family = evaluator.student.family
    texts = evaluator.questions.harmful.search.texts[: family.batch_size]
    screen = Screen(
        family.screen_tokens, lambda answer, _: evaluator.judge.judge(answer).verdict is not Verdict.COMPLIED
    )
    evaluator.generator.speedups = speedups
    start = time.process_time()
    answers = evaluator.generator.answers(texts, family.max_new_tokens, screen)
    return time.process_time() - start, answers


def ratios(evaluator: Evaluator, rounds: int) -> list[tuple[str, str, str]]:
    """Return each part with the median seconds without it, and the median of their ratios to the seconds with it."""
    every_part = evaluator.generator.speedups
    rows = []
    with evaluator.transplanter.transplanted(evaluator.units[::7]):
        timed(evaluator, every_part)  # reads the teacher's tensors
        for name, (values, same) in PARTS.items():
            ways = [every_part, replace(every_part, **values)]
            seconds: list[tuple[float, float]] = []
            for round_number in range(rounds):
                # The order alternates, so that a machine that slows down favours no way.
                order = (0, 1) if round_number % 2 else (1, 0)
                results = {way: timed(evaluator, ways[way]) for way in order}
                if same and results[0][1] != results[1][1]:
                    raise SystemExit(f"Without {name} the answers differ.")
                seconds.append((results[0][0], results[1][0]))
            ratio = median(without / with_part for with_part, without in seconds)
            rows.append((name, f"{median(without for _, without in seconds):.2f}", f"{ratio:.2f}"))
    evaluator.generator.speedups = every_part
    return rows


def searched(family: str, name: str, drafts: bool) -> tuple[int, float, tuple[str, ...]]:
    """Search a tiny student, and return the forward passes, the processor seconds and the units of the patch."""
    (student,) = load_registry().select(family=family, students=[name])
    evaluator = open_evaluator(student)
    if not drafts:
        evaluator.generator.speedups = replace(evaluator.generator.speedups, drafts=None)
    passes: list[None] = []
    evaluator.generator.model.register_forward_pre_hook(lambda *_: passes.append(None))
    start = time.process_time()
    patch = search(evaluator, "benchmark")
    return len(passes), time.process_time() - start, patch.units


def searches() -> list[tuple[str, int, int, str, str]]:
    """Return the passes and seconds of whole searches without and with drafts."""
    rows = []
    for family, name in SEARCHED:
        (plain_passes, plain_seconds, plain), (passes, seconds, units) = (
            searched(family, name, drafts) for drafts in (False, True)
        )
        if plain != units:
            raise SystemExit(f"{family}/{name}: drafts change the patch.")
        rows.append((f"{family}/{name}", plain_passes, passes, f"{plain_seconds:.1f}", f"{seconds:.1f}"))
    return rows


def main() -> None:
    """Measure, and write the report."""
    parser = command.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    student = command.chosen(options)
    given = f"--student {options.student} --threads {options.threads} --rounds {options.rounds}"
    text = "\n\n".join(
        [
            "# Speedups, one left out at a time",
            f"`python -m benchmarks.speed.speedups {given}`",
            tabulate(
                ratios(open_evaluator(student), options.rounds),
                ("without", "seconds a batch", "times as long as with all parts"),
                tablefmt="github", disable_numparse=True,
            ),
            "Whole searches, each without drafts and with them. The patches are the same:",
            tabulate(
                searches(),
                ("student", "passes without", "passes with", "seconds without", "seconds with"),
                tablefmt="github", disable_numparse=True,
            ),
        ]
    )  # fmt: skip
    (Path(__file__).parent / "speedups.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
