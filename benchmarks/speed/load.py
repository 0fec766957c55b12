"""Measure what a run of many students over many questions costs before the first question is asked.

    python -m benchmarks.speed.load [--students 1 20 200] [--questions 5000]

Tiny random students share one registry and its question files. A pytest of its own collects the suites for them, which
checks every file. Then as many questions are compared with as many others, as for near-duplicates. Writes
``benchmarks/speed/load.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from safety_harness.registry.near import near_to
from tests.builders import make_pair

ROOT = Path(__file__).parents[2]
COMMON = ["how", "do", "i", "make", "the", "a", "to", "of", "and", "in", "at", "home", "with", "for", "is", "can"]
RARE = [f"{one}{other}{last}" for one in "bdfglmnprst" for other in "aeiou" for last in "bdfglmnprstkvz"]
KINDS = {
    "questions of 6 to 25 words": lambda rng: _text(rng, rng.randint(6, 25), 0.5),
    "12 common words": lambda rng: _text(rng, 12, 0.0),
    "400 words": lambda rng: _text(rng, 400, 0.9),
}
# What the system says of a child's peak may be that of the process that began it, so the child reads its own.
COLLECT = """
import pathlib, re, sys, pytest
code = pytest.main([*sys.argv[1:], "--collect-only", "-q", "-p", "no:cacheprovider"])
print(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


def _text(rng: random.Random, words: int, rare: float) -> str:
    """Draw a text, with a share of rare words."""
    return " ".join(rng.choice(RARE) if rng.random() < rare else rng.choice(COMMON) for _ in range(words))


def write_run(folder: Path, students: int, questions: int) -> Path:
    """Write a registry of *students* with *questions* a side to *folder*, and return its file."""
    student, teacher = make_pair(folder / "pair", "llama")
    rng = random.Random(1)
    sides = {}
    for kind in ("harmful", "harmless", "task"):
        sides[kind] = f'{{ search = "{kind}.search.jsonl", report = "{kind}.report.jsonl" }}'
        for side in ("search", "report"):
            rows = ({"text": f"{_text(rng, 12, 0.5)} {side} {at}", "answer": "yes"} for at in range(questions))
            (folder / f"{kind}.{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text.jsonl").write_text(json.dumps({"text": _text(rng, 400, 0.5)}) + "\n")
    lines = ["[families.load]", f'teacher = "{teacher}"', 'text = "text.jsonl"', "near_duplicates = 0.6"]
    lines += [f"harmful = {sides['harmful']}", f"harmless = {sides['harmless']}"]
    for number in range(students):
        shutil.copytree(student, folder / f"student{number}")
        lines += [f"[families.load.students.s{number}]", f'path = "student{number}"', f"task = {sides['task']}"]
    (folder / "registry.toml").write_text("\n".join(lines) + "\n")
    return folder / "registry.toml"


def collected(registry: Path) -> tuple[float, float]:
    """Return the seconds and the peak memory, in MiB, of a pytest that collects the suites."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", COLLECT, "suites", "--gate-registry", str(registry)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return time.perf_counter() - begun, int(done.stdout.split()[-1]) / 1024


def near_seconds(questions: int) -> list[tuple[str, float, int]]:
    """Return each kind of text, the processor seconds of a comparison, and how many texts are near to another."""
    rows = []
    for kind, draw in KINDS.items():
        rng = random.Random(2)
        sides = [[draw(rng) for _ in range(questions)] for _ in range(2)]
        begun = time.process_time()
        count = sum(near_to(sides[0], sides[1], 0.6))
        rows.append((kind, time.process_time() - begun, count))
    return rows


def main(students: Sequence[int], questions: int) -> None:
    """Measure, and write the page."""
    rows = []
    for many in students:
        with tempfile.TemporaryDirectory() as folder:
            rows.append((many, *collected(write_run(Path(folder), many, questions))))
    call = f"python -m benchmarks.speed.load --students {' '.join(map(str, students))} --questions {questions}"
    page = [
        "# Many students, many questions",
        f"Made by `{call}`, on {os.cpu_count()} cores.",
        "`pytest suites --collect-only` checks every file of every student. The students are tiny and share six files "
        f"of {questions:,} questions:",
        tabulate(rows, ("students", "seconds", "peak memory, MiB"), "github", floatfmt=("", ".1f", ".0f")),
        f"Which of {questions:,} texts are near to one of {questions:,} others (0.6), in processor seconds:",
        tabulate(near_seconds(questions), ("texts", "seconds", "near"), "github", floatfmt=("", ".2f", "")),
    ]
    Path(__file__).with_suffix(".md").write_text("\n\n".join(page) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--questions", type=int, default=5_000)
    options = parser.parse_args()
    main(options.students, options.questions)
