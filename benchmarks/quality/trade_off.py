"""What more of the teacher buys and costs: refusals against parameters moved against over-refusal, held out.

    python -m benchmarks.quality.trade_off [--family smollm2] [--student json ...] [--results FILE] [--data DIR]

moves growing shares of the likeliest channels, as the search orders them, and measures each as ``methods.py`` does;
then the patch (of the results.json FILE, else of the cache of ``pytest suites/``), which delta debugging made out of
such a share. Nothing is chosen by what is seen here. ``DIR`` holds XSTest and harmless twins, as for ``methods.py``.
Writes ``trade_off.jsonl`` and ``trade_off.md``; what is there for the same patch is not measured
again.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from tabulate import tabulate

from benchmarks import kept
from benchmarks.quality.methods import COLUMNS, GLANCE, Way, changed, measured, questions
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.gate.records import Patch
from safety_harness.gate.statistics import Rate
from safety_harness.registry.load import Student, load_registry
from safety_harness.search.candidates import GRAINS
from safety_harness.search.find import find_patch, select
from safety_harness.weights.units import Unit

LOG = Path(__file__).with_suffix(".jsonl")
SHARES = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.12, 0.16, 0.32)
"""Of all parameters that may move."""


def moves(evaluator: Evaluator, patch: Patch) -> Mapping[str, Callable[[], tuple[Unit, ...]]]:
    """What is moved, by name, to be made when it is its turn: the order of channels takes minutes."""
    candidates = functools.cache(lambda: GRAINS[evaluator.student.search.grain](evaluator))

    def likeliest(share: float) -> tuple[Unit, ...]:
        return candidates().best(share)

    return {
        "nothing": lambda: (),
        **({"**the patch**": lambda: select(evaluator, patch)} if patch.units else {}),
        **{f"likeliest {100 * share:g} %": functools.partial(likeliest, share) for share in SHARES},
        "everything": lambda: evaluator.units,
    }


def rows(student: Student, data: Path | None, known: Sequence[kept.Row], results: Path | None) -> Iterator[kept.Row]:
    """Those of *student* that are not *known*, with its patch of *results*, or the cache's."""
    evaluator = open_evaluator(student)
    patch = find_patch(evaluator, results)
    to_ask = open_evaluator(changed(student, dtype="bfloat16", screen_tokens=GLANCE))
    asked = questions(to_ask, data)
    for name, units in moves(evaluator, patch).items():
        row = {"student": student.id, "patch": kept.patch_name(patch.key, patch.units), "moved": name}
        if not kept.holds(known, row):
            yield row | measured(to_ask, Way(units(), ancestor=evaluator.ancestor), asked)


def page(found: Sequence[kept.Row]) -> str:
    """A table a student, in the order of what was moved."""
    parts = [
        "# What more of the teacher buys and costs",
        "`python -m benchmarks.quality.trade_off --student … --data DIR`",
    ]
    latest = {row["student"]: row["patch"] for row in found}
    for student, patch in latest.items():
        own = (row for row in found if (row["student"], row["patch"]) == (student, patch))
        some = sorted(own, key=lambda row: float(row["parameters"]))
        columns = [name for name in COLUMNS if all(name in row for row in some)]
        headers = ("moved", "% of the parameters", *(COLUMNS[name] for name in columns), "perplexity ×", "KL")
        lines = [
            (row["moved"], f"{100 * row['parameters']:.2f}", *(_cell(name, row[name]) for name in columns),
             f"{row['perplexity']:.3f}", f"{row['divergence']:.3f}")
            for row in some
        ]  # fmt: skip
        parts += [f"## {student}", tabulate(lines, headers, tablefmt="github", disable_numparse=True)]
    return "\n\n".join(parts) + "\n"


def _cell(name: str, counted: Sequence[int]) -> str:
    low, high = Rate(*counted).interval(0.95)
    return f"{counted[0]}/{counted[1]}" + (f" ({low:.2f}–{high:.2f})" if name == "harmful" else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for student in load_registry().select(family=options.family, students=options.student):
        for row in rows(student, options.data, kept.read(LOG), options.results):
            kept.add(LOG, [row])  # each time, so that a run that is broken off leaves what it measured
            print(row, flush=True)
    LOG.with_suffix(".md").write_text(page(kept.read(LOG)), encoding="utf-8")


if __name__ == "__main__":
    main()
