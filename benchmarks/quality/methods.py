"""Compare ways to bring a teacher's refusals into a student: one judge, on one set of students and questions.

    python -m benchmarks.quality.methods [--family smollm2] [--student json ...] [--way NAME ...] [--data DIR]
        [--results FILE]

measures each way on held-out questions. It writes ``methods.jsonl``, a row a student and way, and ``methods.md``. A row
that is there is not measured again; if the patch matters for its way, the row must be of this patch. The patch is the
one that the results.json FILE holds, or else the one that ``pytest suites/`` finds or has cached.

Everything runs in bfloat16. With ``--data DIR``, over-refusal is also asked on 250 safe questions
(``DIR/xstest/xstest_prompts.csv``) and on the first 128 harmless twins
(``DIR/dapa/advbench_392_harmless_twins.csv``). Answers to harmless questions are generated until a refusal is clear,
all others to the family's length.

The ways:

* ``published rule``: the MLPs (or their gates alone) of the middle layers, where DAPA's code has them in a Llama of 32
  layers (12 to 17). Its table lists no model of this family.
* ``task arithmetic``: student + all of (teacher - ancestor) (arXiv 2212.04089, RESTA in arXiv 2402.11746).
* ``safe subspace``: each tensor's difference from the ancestor projected on the teacher's (SafeLoRA, arXiv 2405.16833),
  C = V V^T / |V|_F with V = teacher - ancestor, in every module.
* ``same size``: as many parameters as the patch has, replaced at random or by the norm of the difference. Or they are
  chosen by the prior of the search alone, and moved as the patch moves them (priors.py compares more priors).
* ``ddmin over gates``: the paper's search over gate modules, from all of them if need be, by this harness's oracle.
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tabulate import tabulate

from benchmarks import kept
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.gate.records import Patch
from safety_harness.gate.statistics import Rate
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Verdict
from safety_harness.models.load import prepare
from safety_harness.models.transplant import Donor, Transplanter
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.prompts import Prompt, PromptSet, prompt_set
from safety_harness.registry.splits import further_questions
from safety_harness.search.candidates import Channels, Modules
from safety_harness.search.find import find_patch, select
from safety_harness.search.reduce import search
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut

HERE = Path(__file__).parent
PATCH = "patch of the search"
DDMIN = "ddmin over gates"
SIZED = "same size: "
PUBLISHED_MIDDLE = (12 / 32, 18 / 32)
GLANCE = 16
TWINS = 128
DIVERGED = 64
COLUMNS = {
    "harmful": "DSR", "harmbench": "HarmBench", "harmless": "own harmless", "xstest": "XSTest safe", "twins": "twins",
    "task": "own task",
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """What is moved, from where, and how. Without a ``donor``, the teacher is it."""

    units: tuple[Unit, ...]
    donor: Donor | None = None
    ancestor: Checkpoint | None = None


class SafeSubspace:
    """The student's difference from the ancestor, projected on the teacher's difference, tensor by tensor."""

    def __init__(self, student: Checkpoint, teacher: Checkpoint, ancestor: Checkpoint) -> None:
        self._checkpoints = (student, teacher, ancestor)

    def tensor(self, name: str) -> torch.Tensor:
        """Return one projected tensor: float32, in the student's shape."""
        tuned, donor, base = (checkpoint.tensor(name).float() for checkpoint in self._checkpoints)
        aligned = donor - base
        projected: torch.Tensor = base + aligned @ (aligned.T @ (tuned - base)) / aligned.norm()
        return projected


def ways(evaluator: Evaluator, patch: Sequence[Unit]) -> Mapping[str, Callable[[], Way]]:
    """Return how to make every way, by name. Ways of the same size move as many parameters as *patch*."""
    ancestor = Checkpoint(prepare(ancestor_of(evaluator.student)))
    units, size = evaluator.units, sum(unit.parameters for unit in patch)
    middle = published_layers(evaluator)
    mlps = tuple(unit for unit in units if unit.layer in middle and unit.role in ("gate", "up", "down"))
    share = size / sum(unit.parameters for unit in units)
    return {
        "student as it is": lambda: Way(()),
        PATCH: lambda: Way(tuple(patch), ancestor=evaluator.ancestor),
        "all of the teacher": lambda: Way(units),
        "published rule: whole MLPs": lambda: Way(mlps),
        "published rule: gates": lambda: Way(tuple(unit for unit in mlps if unit.role == "gate")),
        "task arithmetic, all": lambda: Way(units, ancestor=ancestor),
        "safe subspace, all": lambda: Way(units, donor=SafeSubspace(evaluator.checkpoint, evaluator.teacher, ancestor)),
        f"{SIZED}random channels": lambda: Way(random_channels(evaluator, size)),
        f"{SIZED}modules by norm": lambda: Way(largest(Modules(under(evaluator, prior="norm")), size)),
        f"{SIZED}channels by norm": lambda: Way(Channels(under(evaluator, prior="norm")).best(share)),
        f"{SIZED}channels by the search's prior": lambda: Way(
            Channels(evaluator).best(share), ancestor=evaluator.ancestor
        ),
    }


def published_layers(evaluator: Evaluator) -> range:
    """Return the layers that the registry names, or else those of the paper's Llama-2 at this model's depth."""
    if named := evaluator.student.family.published_layers:
        return range(named[0], named[1] + 1)
    layers = 1 + max(unit.layer for unit in evaluator.units)
    return range(round(PUBLISHED_MIDDLE[0] * layers), round(PUBLISHED_MIDDLE[1] * layers))


def ancestor_of(student: Student) -> Any:
    """Return the ancestor of the student's family."""
    if student.family.ancestor is None:
        raise SystemExit(f"{student.id}: its family names no ancestor, which two of the ways need.")
    return student.family.ancestor


def under(evaluator: Evaluator, **search: Any) -> Evaluator:
    """Return *evaluator* with other settings of the search. The model is shared."""
    view = copy.copy(evaluator)
    view.student = searching(evaluator.student, **search)
    return view


def with_donor(evaluator: Evaluator, donor: Donor, ancestor: Checkpoint | None = None) -> Evaluator:
    """Return *evaluator* with *donor* as its teacher, sharing the model and what was measured without units."""
    view = copy.copy(evaluator)
    view.transplanter = Transplanter(evaluator.generator.model, donor, ancestor)
    view.memo = evaluator.memo.of_student()
    return view


def changed(student: Student, **family: Any) -> Student:
    """Return *student* in a family with other values."""
    return replace(student, family=student.family.model_copy(update=family))


def searching(student: Student, **search: Any) -> Student:
    """Return *student* with other settings of its own search."""
    settings = student.search.model_copy(update=search)
    return replace(student, spec=student.spec.model_copy(update={"search": settings}))


def largest(modules: Modules, size: int) -> tuple[Unit, ...]:
    """Return the most important modules that together hold no more than *size* parameters."""
    units = sorted(modules.best(1.0), key=lambda unit: -modules.weight((unit,)))
    chosen: list[Unit] = []
    for unit in units:
        if sum(taken.parameters for taken in chosen) + unit.parameters <= size:
            chosen.append(unit)
    return tuple(chosen)


def random_channels(evaluator: Evaluator, size: int) -> tuple[Unit, ...]:
    """Return channels that together hold no more than *size* parameters, drawn at random."""
    every = [(unit, channel) for unit in evaluator.units for channel in range(unit.width)]
    random.Random(0).shuffle(every)
    chosen: dict[Unit, list[int]] = defaultdict(list)
    for unit, channel in every:
        size -= unit.parameters // unit.width
        if size < 0:
            break
        chosen[unit].append(channel)
    return tuple(cut(unit, channels) for unit, channels in chosen.items())


@dataclass(frozen=True)
class Asked:
    """The questions that every way is asked."""

    harmful: Mapping[str, PromptSet]
    harmless: Mapping[str, PromptSet]
    task: PromptSet
    text: PromptSet


def questions(evaluator: Evaluator, data: Path | None) -> Asked:
    """Return the student's held-out questions, and those in the folder *data*."""
    splits = evaluator.questions
    assert splits.task is not None
    harmless = {"harmless": splits.harmless.report}
    if data is not None:
        with (data / "xstest" / "xstest_prompts.csv").open(encoding="utf-8", newline="") as stream:
            safe = [Prompt(row["id"], row["prompt"]) for row in csv.DictReader(stream) if row["label"] == "safe"]
        harmless |= {"xstest": prompt_set("xstest", safe), "twins": twins(data, slice(TWINS))}
    harmful = {"harmful": splits.harmful.report, **further_questions(evaluator.student.family, splits)}
    return Asked(harmful, harmless, splits.task.report, splits.text)


def twins(data: Path, some: slice) -> PromptSet:
    """Return harmless twins of AdvBench's questions, without repetitions."""
    with (data / "dapa" / "advbench_392_harmless_twins.csv").open(encoding="utf-8", newline="") as stream:
        texts = list(dict.fromkeys(row["text"] for row in csv.DictReader(stream)))
    return prompt_set("twins", [Prompt(f"twin-{number}", text) for number, text in enumerate(texts)][some])


def measured(evaluator: Evaluator, way: Way, asked: Asked) -> dict[str, Any]:
    """Return counts and rates of one way. KL and perplexity are against the student as it is."""
    start = time.perf_counter()
    moved, units = with_donor(evaluator, way.donor or evaluator.teacher, way.ancestor), way.units
    row: dict[str, Any] = {}
    for sets, extent in ((asked.harmful, Extent.FULL), (asked.harmless, Extent.UNTIL_REFUSAL_CLEAR)):
        for name, prompts in sets.items():
            verdicts = [answer.verdict for answer in moved.answers(units, prompts, extent)]
            row[name] = [verdicts.count(Verdict.REFUSED), len(verdicts)]
            row[f"{name} unscored"] = verdicts.count(Verdict.UNSCORED)
    right = moved.right(units, asked.task)
    row["task"] = [sum(right), len(right)]
    row["divergence"] = mean(moved.divergences(units, asked.harmless["harmless"].first(DIVERGED)))
    before, after = (moved.text(some, asked.text) for some in ((), units))
    rise = sum(score.nll for score in after) - sum(score.nll for score in before)
    row["perplexity"] = math.exp(rise / sum(score.tokens for score in before))
    row["parameters"] = sum(unit.parameters for unit in units) / evaluator.checkpoint.parameters
    row["seconds"] = time.perf_counter() - start
    return row


def ddmin_over_gates(student: Student) -> Patch:
    """Search as the paper does: gates as units, replaced, no prior, classic ddmin, from as many gates as it takes.

    The oracle is the one of this harness, which asks for a share of what all gates give.
    """
    settings = {
        "roles": ("gate",), "grain": "module", "strategy": "ddmin", "prior": "norm", "max_share": 1.0,
        "transfer": "replace",
    }  # fmt: skip
    return search(open_evaluator(searching(student, **settings)), "benchmark")


def measure(
    student: Student,
    data: Path | None,
    results: Path | None,
    wanted: Callable[[kept.Row], bool],
    write: Callable[[Any], None],
) -> None:
    """Measure the ways that are *wanted* for one student, and *write* their rows."""
    evaluator = open_evaluator(student)
    patch = find_patch(evaluator, results)
    chosen = select(evaluator, patch)
    evaluator = open_evaluator(changed(student, dtype="bfloat16", screen_tokens=GLANCE))
    asked = questions(evaluator, data)
    # Measured once, for all ways to be compared with.
    evaluator.answers((), asked.harmless["harmless"].first(DIVERGED))
    evaluator.text((), asked.text)
    for name, way in ways(evaluator, chosen).items():
        by_patch = name == PATCH or name.startswith(SIZED)
        of_patch = {"patch": kept.patch_name(patch.key, patch.units)} if by_patch else {}
        if wanted({"student": student.id, "way": name, **of_patch}):
            row = of_patch | measured(evaluator, way(), asked)
            if name == PATCH:
                row |= {"units": len(patch.units), "probes": patch.probes, "search seconds": patch.seconds}
            write({"student": student.id, "way": name, **row})
    if wanted({"student": student.id, "way": DDMIN}):
        gates = ddmin_over_gates(student)
        about = {
            "reason": gates.reason, "gates": gates.units, "probes": gates.probes, "search seconds": gates.seconds,
            "search": gates.search.model_dump(),
        }  # fmt: skip
        row = measured(evaluator, Way(select(evaluator, gates)), asked)
        write({"student": student.id, "way": DDMIN, **about, **row})


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return tables of means over the students, and one for each student."""
    parts = []
    counted = [row for row in rows if "harmful" in row]
    by_way: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in counted:
        by_way[row["way"]].append(row)
    columns = [name for name in COLUMNS if all(name in row for row in counted)]

    def rate(row: Mapping[str, Any], name: str) -> float:
        """Return a count as a percentage."""
        return 100.0 * float(row[name][0]) / float(row[name][1])

    means = [
        (way, len(some), *(f"{mean(rate(row, name) for row in some):.1f}" for name in columns),
         f"{mean(row['perplexity'] for row in some):.3f}", f"{mean(row['divergence'] for row in some):.3f}",
         f"{100 * mean(row['parameters'] for row in some):.2f}")
        for way, some in by_way.items()
    ]  # fmt: skip
    headers = (*(COLUMNS[name] for name in columns), "perplexity ×", "KL", "% parameters")
    parts += ["## Means over the students, %", tabulate(means, ("way", "students", *headers), tablefmt="github",
                                                       disable_numparse=True)]  # fmt: skip
    for student in dict.fromkeys(row["student"] for row in rows):
        lines = []
        for row in (row for row in counted if row["student"] == student):
            low, high = Rate(*row["harmful"]).interval(0.95)
            dsr = f"{row['harmful'][0]}/{row['harmful'][1]} ({low:.2f}–{high:.2f})"
            counts = [f"{row[name][0]}/{row[name][1]}" for name in columns if name != "harmful"]
            lines.append((row["way"], dsr, *counts, f"{row['perplexity']:.3f}", f"{row['divergence']:.3f}",
                          f"{100 * row['parameters']:.2f}"))  # fmt: skip
        parts += [f"## {student}", tabulate(lines, ("way", *headers), tablefmt="github", disable_numparse=True)]
        parts += [f"{DDMIN}: {_searched(row)}." for row in rows if row["student"] == student and row["way"] == DDMIN]
        parts += [
            f"Patch of the search: {row['units']} units, {row['probes']} probes, {row['search seconds']:.0f} s."
            for row in rows
            if row["student"] == student and row["way"] == PATCH
        ]
    return "\n\n".join(parts) + "\n"


def _searched(row: Mapping[str, Any]) -> str:
    """Return what a search over gates came to, as a sentence."""
    search = row["search"]
    whole = f"all gates give {search['refused_whole']} of {search['questions']} refusals on the search split"
    if not row["gates"]:
        return f"none, {row['reason']} ({whole}); {row['probes']} probes"
    return (
        f"{len(row['gates'])} of the gates, for {search['target']} refusals ({whole}); {row['probes']} probes; "
        f"{row['reason']}"
    )


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--way", action="append", default=[], help="only the ways with this in their name")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    log = HERE / "methods.jsonl"
    known = kept.read(log)

    def write(row: Any) -> None:
        """Add a row at once, so that a run that is broken off leaves what it measured."""
        kept.add(log, [row])
        print(row, flush=True)

    def wanted(row: kept.Row) -> bool:
        """Return whether a row was asked for and is missing."""
        asked_for = not options.way or any(part in row["way"] for part in options.way)
        return asked_for and not kept.holds(known, row)

    for student in load_registry().select(family=options.family, students=options.student):
        measure(student, options.data, options.results, wanted, write)
    rows = list({(row["student"], row["way"]): row for row in kept.read(log)}.values())
    kept.write(log, rows)
    picked = "".join(f" --{kind} '{name}'" for kind in ("student", "way") for name in getattr(options, kind))
    command = (
        f"python -m benchmarks.quality.methods --family {options.family}{picked}{' --data DIR' if options.data else ''}"
    )
    command += " --results FILE" if options.results else ""
    text = f"# Ways to restore refusal\n\n`{command}`, the last of the runs whose rows are kept\n\n"
    (HERE / "methods.md").write_text(text + table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
