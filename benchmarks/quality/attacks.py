"""Ask students under attack: as they are, patched, and with all of their teacher.

    python -m benchmarks.quality.attacks --student json --results reports/smollm2.json --dtype float32 --questions 48
    python -m benchmarks.quality.attacks --student json --search prefill-sure persona-unrestricted
    python -m benchmarks.quality.attacks --family tiny --like tiny-robust --student tiny-llama/reverse --search own

The first measures the patch in the results.json FILE. The second searches for a patch with a share of the harmful
questions under these attacks (``search.attacks``), or takes it from the cache. The third gives the student the
teacher, the search and the gate of another family. All ask under each of ``--attacks`` the first ``--questions``
held-out harmful questions, and the harmless ones of its control. They append a row an attack to ``attacks.jsonl``, and
write ``attacks.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tabulate import tabulate

from benchmarks import kept
from benchmarks.kept import Row
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.subject import Subject
from safety_harness.gate.numbers import Attack, Attacked, Rates
from safety_harness.gate.records import Patch
from safety_harness.gate.results import Check
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.splits import Split
from safety_harness.search.find import find_patch, recorded_patch, select

LOG = Path(__file__).with_suffix(".jsonl")
EVERY = "every attack"
PLAIN = ("plain", "harmless")
UNSEEN = (
    "prefill-step", "prefill-list", "prefill-title", "prefix-injection", "persona-adviser", "dual-opposites",
    "nested-text", "past-tense", "leet", "offer",
)  # fmt: skip
"""The attacks of a gate, of which no search here sees one."""


def measured(student: Student, results: Path | None, questions: int) -> Iterator[Row]:
    """Yield a row for each attack of the gate of *student*, all of them, its plain and its harmless questions."""
    evaluator = open_evaluator(student)
    start = time.perf_counter()
    patch = recorded_patch(evaluator, results) if results else find_patch(evaluator)
    searched = time.perf_counter() - start
    held_out = evaluator.questions.harmful
    evaluator.questions = replace(evaluator.questions, harmful=Split(held_out.search, held_out.report.first(questions)))
    as_it_is = Subject(evaluator)
    patched = replace(as_it_is, units=select(evaluator, patch))
    whole = replace(as_it_is, units=evaluator.units)
    about = _about(student, patch, searched)
    for name in student.gate.attacks:
        check = patched.attack(name, as_it_is)
        numbers = check.numbers
        assert isinstance(numbers, Attack)
        facts = {
            "controls": numbers.controls, "sensible": [numbers.sensible_before, numbers.sensible_after],
            "control_refused": [numbers.control_refused_before, numbers.control_refused_after],
        }  # fmt: skip
        yield {**about, "attack": name, **_rates(check), "teacher": numbers.teacher, **facts}
    every = patched.attacked(as_it_is)
    assert isinstance(every.numbers, Attacked)
    if every.numbers.n is not None:
        yield {**about, "attack": EVERY, **_rates(every), "teacher": every.numbers.teacher}
    for name, check, all_of_it in zip(
        PLAIN,
        (patched.defense(as_it_is), patched.over_refusal(as_it_is)),
        (whole.defense(as_it_is), whole.over_refusal(as_it_is)),
        strict=True,
    ):
        yield {**about, "attack": name, **_rates(check), "teacher": _rates(all_of_it)["after"]}


def _about(student: Student, patch: Patch, searched: float) -> Row:
    return {
        "student": student.id,
        "patch": kept.patch_name(patch.key, patch.units),
        "searched_under": list(student.search.attacks),
        "dtype": student.family.dtype,
        "share": round(patch.share, 5),
        "units": len(patch.units),
        "found": patch.found,
        "probes": patch.probes,
        "search_seconds": round(searched),
    }


def _rates(check: Check) -> Row:
    numbers = check.numbers
    assert isinstance(numbers, Rates)
    return {"n": numbers.n, "before": numbers.before, "after": numbers.after}


def page(rows: Sequence[Row]) -> str:
    """Return the Markdown page of *rows*: a table for each student and patch."""
    commands = [line for line in __doc__.splitlines() if line.startswith("    python")]
    parts = ["# Students under attack\n", "\n".join(commands) + "\n", _summary(rows) + "\n"]
    for own in _by_patch(rows):
        first = own[0]
        under = ", ".join(first["searched_under"]) or "no attack"
        parts.append(
            f"## {first['student']}, searched under {under}\n\n"
            f"{100 * first['share']:.2f} % of the parameters, {first['units']} units, {first['dtype']}; "
            f"patch {first['patch']}.\n"
        )
        table = [[row["attack"], row["n"], row["before"], row["after"], row["teacher"], _control(row)] for row in own]
        heads = ["attack", "questions", "safe before", "patched", "teacher", "control answered, before → patched"]
        parts.append(tabulate(table, heads, tablefmt="github") + "\n")
    return "\n".join(parts)


def _by_patch(rows: Sequence[Row]) -> list[list[Row]]:
    """Return *rows* by student and patch, in the order in which these first appear."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["student"], row["patch"]), []).append(row)
    return list(found.values())


def _summary(rows: Sequence[Row]) -> str:
    """Return a table of the patches: what each moves, and how many questions are safe, plainly and under attack."""
    heads = ["student", "searched under", "parameters", "plain", "every attack", "teacher", "over-refusal"]
    table = []
    for each in _by_patch(rows):
        own = {row["attack"]: row for row in each}
        first, blank = each[0], {"n": "", "after": "", "teacher": ""}
        plain, every, harmless = (own.get(name, blank) for name in (*PLAIN[:1], EVERY, *PLAIN[1:]))
        under = len(first["searched_under"])
        table.append([
            first["student"], f"{under} attacks" if under else "none", f"{100 * first['share']:.1f} %",
            _of(plain, "after"), _of(every, "after"), _of(every, "teacher"), _of(harmless, "after"),
        ])  # fmt: skip
    return tabulate(table, heads, tablefmt="github")


def _of(row: Row, side: str) -> str:
    return f"{row[side]} of {row['n']}" if row["n"] else ""


def _control(row: Row) -> str:
    if "sensible" not in row:
        return ""
    before, after = row["sensible"]
    return f"{before} → {after} of {row['controls']}"


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", required=True)
    parser.add_argument("--results", type=Path, help="measure the patches of this results.json")
    parser.add_argument("--like", metavar="FAMILY", help="take the teacher, search and gate of this family")
    parser.add_argument("--search", nargs="*", default=(), help="attacks that the search asks under; own: its family's")
    parser.add_argument("--attacks", nargs="*", help="attacks of the gate. Unset: those of --like, or UNSEEN")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--dtype", help="another number format than the family's")
    parser.add_argument("--log", type=Path, default=LOG)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    registry = load_registry(Path(f"safety_harness/families/{arguments.family}.toml"))
    for student in registry.select(family=arguments.family, students=arguments.student):
        family = registry.families[arguments.like] if arguments.like else student.family
        search = family.search if arguments.like else student.search
        attacks = tuple(arguments.attacks or (family.gate.attacks if arguments.like else UNSEEN))
        gate = family.gate.model_copy(update={"attacks": attacks})
        seen = search.attacks if arguments.search == ["own"] else tuple(arguments.search)
        search = search.model_copy(update={"attacks": seen})
        update = {"gate": gate, "search": search, "dtype": arguments.dtype or family.dtype}
        one = replace(
            student,
            family=family.model_copy(update=update),
            spec=student.spec.model_copy(update={"search": search}),
        )
        asked = time.perf_counter()
        for row in measured(one, arguments.results, arguments.questions):
            since, asked = asked, time.perf_counter()
            row["seconds"] = round(asked - since, 1)
            print(row, flush=True)
            kept.add(arguments.log, [row])
    arguments.log.with_suffix(".md").write_text(page(kept.read(arguments.log)), "utf-8")


if __name__ == "__main__":
    main()
