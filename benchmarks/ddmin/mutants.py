"""Do the tests of the delta debugging notice when it is broken? Break it in many small ways, and see.

    python -m benchmarks.ddmin.mutants --count 120 --seed 0 --out benchmarks/ddmin/mutants.md

Draws mutants evenly over the lines of ``safety_harness/ddmin`` (comparisons shifted or turned round, conditions
negated, numbers off by one, operators exchanged, calls left out), runs the tests of the room on each in a copy of
the repository, and lists the survivors. ``--explained FILE`` (lines ``place: why``) sets a reason beside each.
"""

from __future__ import annotations

import argparse
import ast
import copy
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from tabulate import tabulate

ROOT = Path(__file__).parents[2]
ROOM = Path("safety_harness/ddmin")
TESTS = (
    "tests/ddmin/test_ddmin_calls.py",
    "tests/ddmin/test_ddmin.py",
    "tests/cli/test_reduce_command.py",
    "tests/ddmin",
)
SLOWEST = 75.0  # seconds, where all tests take 15; a mutant that never ends is noticed as well

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.LShift: ast.RShift,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One small change: the node with this number in its file's walk."""

    file: Path
    node: int
    line: int
    what: str

    @property
    def place(self) -> str:
        return f"{self.file.name}:{self.line} {self.what}"


def mutants(file: Path) -> Iterator[Mutant]:
    """Every mutant of a file."""
    for number, node in enumerate(ast.walk(ast.parse(file.read_text("utf-8")))):
        what = _changed(copy.deepcopy(node))
        if what:
            yield Mutant(file, number, getattr(node, "lineno", 0), what)


def source(mutant: Mutant) -> str:
    """The file with the change in it."""
    tree = ast.parse(mutant.file.read_text("utf-8"))
    node = next(node for number, node in enumerate(ast.walk(tree)) if number == mutant.node)
    _changed(node)
    return ast.unparse(ast.fix_missing_locations(tree))


def _changed(node: ast.AST) -> str:
    """Change a node in place, and say how; empty where there is nothing to change."""
    match node:
        case ast.Compare(ops=[op, *_]) if type(op) in COMPARISONS:
            node.ops[0] = COMPARISONS[type(op)]()
            return f"{type(op).__name__} -> {type(node.ops[0]).__name__}"
        case ast.BinOp(op=op) if type(op) in OPERATORS and not _is_type(node):
            node.op = OPERATORS[type(op)]()
            return f"{type(op).__name__} -> {type(node.op).__name__}"
        case ast.BoolOp(op=op):
            node.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            return f"{type(op).__name__} -> {type(node.op).__name__}"
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            if isinstance(test, ast.Compare | ast.BoolOp | ast.Name) and _type_checking(test):
                return ""
            node.test = ast.UnaryOp(ast.Not(), test)
            return f"{type(node).__name__} negated"
        case ast.Constant(value=bool() as value):
            node.value = not value
            return f"{value} -> {node.value}"
        case ast.Constant(value=int() | float() as value):
            node.value = value + 1
            return f"{value} -> {node.value}"
        case ast.Expr(value=ast.Call() as call):
            node.value = ast.Constant(None)
            return f"without {ast.unparse(call)[:40]}"
    return ""


def _is_type(node: ast.BinOp) -> bool:
    """``int | None`` is no arithmetic."""
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return any(isinstance(part, ast.Constant) and part.value is None for part in ast.walk(node)) or "bool" in names


def _type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or "sys.platform" in ast.unparse(test)


def verdict(mutant: Mutant, copy_: Path) -> str:
    """``killed``, ``too slow`` or ``survived``."""
    target = copy_ / mutant.file.relative_to(ROOT)
    whole = target.read_text("utf-8")
    target.write_text(source(mutant), "utf-8")
    tests = [path for name in TESTS for path in sorted(copy_.glob(f"{name}/test_ddmin_*.py")) or [copy_ / name]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *map(str, tests)]
    try:
        done = subprocess.run(command, cwd=copy_, capture_output=True, timeout=SLOWEST, check=False)
        return "killed" if done.returncode else "survived"
    except subprocess.TimeoutExpired:
        return "too slow"
    finally:
        target.write_text(whole, "utf-8")


def explanations(file: Path | None) -> dict[str, str]:
    """Place -> why its mutant may survive."""
    if file is None:
        return {}
    rows = (line.split(": ", 1) for line in file.read_text("utf-8").splitlines() if ": " in line)
    return dict(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="how many at once; no more than there are free cores")
    parser.add_argument("--file", action="append", default=[], help="only these files of the room")
    parser.add_argument("--explained", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    files = [ROOT / ROOM / name for name in arguments.file] or sorted((ROOT / ROOM).glob("*.py"))
    every = [mutant for file in files for mutant in mutants(file)]
    drawn = sorted(
        random.Random(arguments.seed).sample(every, min(arguments.count, len(every))), key=lambda m: (m.file, m.line)
    )
    found: dict[str, list[Mutant]] = {"killed": [], "too slow": [], "survived": []}
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.jobs) as pool:
        copies: Queue[Path] = Queue()
        ignored = shutil.ignore_patterns(".*", "families")
        for number in range(arguments.jobs):
            copies.put(Path(shutil.copytree(ROOT, Path(scratch) / f"copy{number}", ignore=ignored)))

        def tried(mutant: Mutant) -> str:
            copy_ = copies.get()
            try:
                return verdict(mutant, copy_)
            finally:
                copies.put(copy_)

        for mutant, outcome in zip(drawn, pool.map(tried, drawn), strict=True):
            found[outcome].append(mutant)
            print(f"{outcome:9} {mutant.place}", flush=True)
    why = explanations(arguments.explained)
    counts = ", ".join(f"{len(there)} {outcome}" for outcome, there in found.items())
    rows = [(f"`{mutant.place}`", why.get(mutant.place, "not explained")) for mutant in found["survived"]]
    page = (
        f"# Mutants of the delta debugging\n\n`python -m benchmarks.ddmin.mutants --count {arguments.count} "
        f"--seed {arguments.seed}`: {len(drawn)} of {len(every)} mutants: {counts}.\n\n"
        + tabulate(rows, headers=("survivor", "why"), tablefmt="github")
        + "\n"
    )
    print(page)
    if arguments.out:
        arguments.out.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
