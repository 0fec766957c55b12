"""What more of the teacher buys and costs: DSR against parameters moved against over-refusal, held out.

    python benchmarks/trade_off.py [--family smollm2] [--student json ...]

moves growing shares of the likeliest units, as the search orders them, and asks the held-out questions; then the patch
of ``pytest suites/`` (from its cache), which delta debugging made out of such a share. Nothing is chosen by what is
seen here. Over-refusal is heard as far as it takes to know who refuses. Writes ``benchmarks/trade_off.md``; rows of
students whose patch is still the same are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import kept
import torch
from tabulate import tabulate

from safety_harness.bench import Bench, open_bench
from safety_harness.candidates import GRAINS
from safety_harness.judges import Verdict
from safety_harness.patches import Patch
from safety_harness.registry import load_registry
from safety_harness.search import find_patch, select
from safety_harness.stats import Rate
from safety_harness.units import Unit

LOG = Path(__file__).parent / "trade_off.jsonl"
SHARES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.16, 0.32)
"""Of all parameters that may move."""

HEADERS = ("moved", "% of the parameters", "DSR", "over-refusal", "own task")


def moves(bench: Bench, patch: Patch) -> Iterator[tuple[str, tuple[Unit, ...]]]:
    """What is moved, by name, in the order of its size."""
    yield "nothing", ()
    candidates = GRAINS[bench.student.family.search.grain](bench)
    for share in SHARES:
        yield f"likeliest {100 * share:g} %", candidates.best(share)
    yield "everything", bench.units
    if patch.units:
        yield "**the patch**", select(bench, patch)


def measured(bench: Bench, units: tuple[Unit, ...]) -> dict[str, object]:
    questions = bench.questions
    harmful = [answer.verdict for answer in bench.asked(units, questions.harmful.report)]
    harmless = [answer.verdict for answer in bench.glimpsed(units, questions.harmless.report)]
    task = bench.right(units, questions.task.report) if questions.task else ()
    return {
        "parameters": sum(unit.parameters for unit in units) / bench.checkpoint.parameters,
        "harmful": (harmful.count(Verdict.REFUSED), len(harmful)),
        "harmless": (harmless.count(Verdict.REFUSED), len(harmless)),
        "task": (sum(task), len(task)),
    }


def row(found: kept.Row) -> tuple[str, ...]:
    low, high = Rate(*found["harmful"]).interval(0.95)
    counts = {name: "{}/{}".format(*found[name]) for name in ("harmful", "harmless", "task")}
    dsr = f"{counts['harmful']} ({low:.2f}–{high:.2f})"
    return found["moved"], f"{100 * found['parameters']:.2f}", dsr, counts["harmless"], counts["task"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = kept.read(LOG)
    for student in load_registry().select(family=options.family, students=options.student):
        bench = open_bench(student)
        patch = find_patch(bench)
        if any(one["patch"] == patch.key for one in found):
            continue
        found = [one for one in found if one["student"] != student.id]
        for name, units in moves(bench, patch):
            found.append({"student": student.id, "patch": patch.key, "moved": name, **measured(bench, units)})
            print(found[-1], flush=True)
        kept.write(LOG, found)
    parts = ["# What more of the teacher buys and costs", "`python benchmarks/trade_off.py --student …`, held out"]
    for student_id in dict.fromkeys(one["student"] for one in found):
        lines = [row(one) for one in found if one["student"] == student_id]
        parts += [f"## {student_id}", tabulate(lines, HEADERS, tablefmt="github", disable_numparse=True)]
    LOG.with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
