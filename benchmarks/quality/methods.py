"""Compare ways to bring a teacher's refusals into a student: one judge, on one set of students and questions.

    python -m benchmarks.quality.methods [--family smollm2] [--student json ...] [--way NAME ...] [--data DIR]
        [--results FILE]

measures each way on held-out questions. It writes ``methods.jsonl``, a row a student and way, and ``methods.md``. A row
that is there is not measured again. It must be of these questions, of this teacher and, where it matters, of this
patch: the one that the results.json FILE holds, or else the one that ``pytest suites/`` finds or has cached.

Everything runs in bfloat16. With ``--data DIR``, over-refusal is also asked on 250 safe questions
(``DIR/xstest/xstest_prompts.csv``) and on the first 128 harmless twins
(``DIR/dapa/advbench_392_harmless_twins.csv``). Answers to harmless questions are generated until a refusal is clear,
all others to the family's length.

The ways:

* ``published rule``: the MLPs (or their gates alone) of the middle layers. In DAPA's code these are 12 to 17 of a Llama
  of 32 layers. Its table lists no model of this family.
* ``task arithmetic``: student + all of (teacher - ancestor) (arXiv 2212.04089, RESTA in arXiv 2402.11746).
* ``safe subspace``: each tensor's difference from the ancestor projected on the teacher's (SafeLoRA, arXiv 2405.16833),
  C = V V^T / |V|_F with V = teacher - ancestor, in every module.
* ``gradient-guided weights``: single weights restored along a gradient, with a rollback (arXiv 2504.09757;
  ``restored.py`` says how).
* ``selective merge``: modules that left the safe subspace merged with the teacher's (SafeMERGE, arXiv 2503.17239;
  ``merged.py``).
* ``one refusal tuned``: tuned on a single refusal (arXiv 2601.01887; ``one_shot.py``).
* ``same size``: as many parameters as the patch has, replaced at random or by the norm of the difference. Or they are
  chosen by the prior of the search alone, and moved as the patch moves them (priors.py compares more priors).
* ``ddmin over gates``: the paper's search over gate modules, from all of them if need be, by this harness's oracle.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tabulate import tabulate

from benchmarks import kept
from benchmarks.quality.ways import AS_IT_IS, PATCH, SIZED, Way, changed, searching, ways, with_donor
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.files import sha256_text
from safety_harness.gate.records import Patch
from safety_harness.gate.statistics import Rate
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Verdict
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.prompts import Prompt, PromptSet, prompt_set
from safety_harness.registry.splits import further_questions
from safety_harness.search.find import find_patch, select
from safety_harness.search.reduce import search

HERE = Path(__file__).parent
DDMIN = "ddmin over gates"
GLANCE = 16
TWINS = 128
DIVERGED = 64
COLUMNS = {
    "harmful": "DSR", "harmbench": "HarmBench", "harmless": "own harmless", "xstest": "XSTest safe", "twins": "twins",
    "task": "own task",
}  # fmt: skip


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
    numbers = sum(unit.parameters for unit in units) if way.parameters is None else way.parameters
    row["parameters"] = numbers / evaluator.checkpoint.parameters
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
    teacher = evaluator.teacher.fingerprint[:12]
    sets = [*asked.harmful.values(), *asked.harmless.values(), asked.task, asked.text]
    digest = sha256_text(" ".join(prompts.sha256 for prompts in sets))[:12]
    # Measured once, for all ways to be compared with.
    evaluator.answers((), asked.harmless["harmless"].first(DIVERGED))
    evaluator.text((), asked.text)
    for name, way in ways(evaluator, chosen).items():
        by_patch = name == PATCH or name.startswith(SIZED)
        made_of = {"asked": digest}
        made_of |= {"teacher": teacher} if name != AS_IT_IS else {}
        made_of |= {"patch": kept.patch_name(patch.key, patch.units)} if by_patch else {}
        if wanted({"student": student.id, "way": name, **made_of}):
            made = way()
            row = made_of | measured(evaluator, made, asked) | ({"chosen": made.about} if made.about else {})
            if name == PATCH:
                row |= {"units": len(patch.units), "probes": patch.probes, "search seconds": patch.seconds}
            write({"student": student.id, "way": name, **row})
    by_gates = {"student": student.id, "way": DDMIN, "teacher": teacher, "asked": digest}
    if wanted(by_gates):
        gates = ddmin_over_gates(student)
        about = {
            "reason": gates.reason, "gates": gates.units, "probes": gates.probes, "search seconds": gates.seconds,
            "search": gates.search.model_dump(),
        }  # fmt: skip
        row = measured(evaluator, Way(select(evaluator, gates)), asked)
        write({**by_gates, **about, **row})


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
        parts += [f"{row['way']}: {row['chosen']}." for row in rows if row["student"] == student and "chosen" in row]
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


def _of_one_teacher(rows: Sequence[kept.Row]) -> list[kept.Row]:
    """Return *rows* without those of another teacher than the newest row's."""
    newest = [row["teacher"] for row in rows if "teacher" in row][-1:]
    return [row for row in rows if row["way"] == AS_IT_IS or not newest or row.get("teacher") == newest[0]]


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
    rows = _of_one_teacher(list({(row["student"], row["way"]): row for row in kept.read(log)}.values()))
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
