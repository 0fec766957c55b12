"""Count oracle calls of `safety_harness.ddmin` and of published reducers, on the same oracles in one run.

    pip install picire lithium-reducer hypothesis shrinkray 'setuptools<80'      # Python 3.12 or newer
    PYTHONPATH=. python -m benchmarks.ddmin.calls --out benchmarks/ddmin/calls.md
    PYTHONPATH=. python -m benchmarks.ddmin.calls --n 90 --cells c_exp_0.5 b_k16 --seeds 5

`cells.py` defines the oracles, `peers.py` calls each peer. Counted are the distinct subsets evaluated; the full set is
known to be true and free. Figures are medians over the seeds. Every result is checked against the noiseless oracle:
whether it is accepted, and whether it is 1-minimal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.ddmin.cells import NOISELESS, SIZES, Cell, make_cell
from benchmarks.ddmin.peers import PEERS, versions
from safety_harness.ddmin import Level, minimize


@dataclass(frozen=True)
class Run:
    """One reduction: distinct calls, final size, and whether the result is accepted and 1-minimal in truth."""

    calls: int
    size: int
    valid: bool
    minimal: bool


Column = Callable[[Cell], Run]


def own(certificate: Level = "monotone", *, prior: bool = False) -> Column:
    """Return a function that reduces a cell by `minimize`."""

    def run(cell: Cell) -> Run:
        result = minimize(
            range(cell.n),
            cell.truth,
            certificate=certificate,
            weights=cell.prior if prior else None,
            assume={frozenset(range(cell.n)): True},
        )
        return Run(result.calls, len(result.kept), cell.truth(result.kept), cell.one_minimal(result.kept))

    return run


def peer(name: str) -> Column:
    """Return a function that reduces a cell by a published tool. A repeated subset is answered from a memo."""

    def run(cell: Cell) -> Run:
        memo = {tuple(range(cell.n)): True}

        def test(units: tuple[int, ...]) -> bool:
            if units not in memo:
                memo[units] = cell.truth(units)
            return memo[units]

        kept = tuple(sorted(PEERS[name](tuple(range(cell.n)), test)))
        return Run(len(memo) - 1, len(kept), cell.truth(kept), cell.one_minimal(kept))

    return run


OWN: dict[str, Column] = {
    "default": own(),
    "explicit": own("explicit"),
    "default, prior": own(prior=True),
    "search only, prior": own("none", prior=True),
}
COLUMNS: dict[str, Column] = {**{name: peer(name) for name in PEERS}, **OWN}

Table = dict[tuple[str, int], dict[str, list[Run]]]


def measure(cells: Sequence[str], sizes: Sequence[int], seeds: range) -> Table:
    """Run every column on every cell, and print the medians on the way."""
    table: Table = {}
    for n in sizes:
        for name in cells:
            drawn = [make_cell(name, n, seed) for seed in seeds]
            table[name, n] = {column: [run(cell) for cell in drawn] for column, run in COLUMNS.items()}
            print(f"{name}@{n}", calls_of(table[name, n]), file=sys.stderr, flush=True)
    return table


def calls_of(row: dict[str, list[Run]]) -> dict[str, float]:
    """Return the median calls of each column."""
    return {column: median(run.calls for run in runs) for column, runs in row.items()}


def render(table: Table) -> str:
    """Render the table in Markdown, median calls with the median size in brackets, and a summary."""
    lines = ["| cell | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for (name, n), row in table.items():
        calls = calls_of(row)
        texts = (f"{calls[c]:g} ({median(run.size for run in row[c]):g})" for c in COLUMNS)
        lines.append(f"| {name}@{n} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, "", *summary(table)])


def summary(table: Table) -> list[str]:
    """Compare with the peers, with and without a prior, and count the sound results: one line each."""
    return [
        _against_peers(table, "default", table),
        _against_peers(table, "explicit", {key: row for key, row in table.items() if key[0].startswith(("c", "d"))}),
        _blocks(table),
        *(_checked(table, column) for column in COLUMNS),
    ]


def _against_peers(table: Table, column: str, chosen: Table) -> str:
    """Say in how many of the chosen cells a column makes fewer calls than every peer."""
    best = {key: min(calls_of(table[key])[p] for p in PEERS) for key in chosen}
    mine = {key: calls_of(table[key])[column] for key in chosen}
    fewest = sum(mine[key] < best[key] for key in chosen)
    more = [f"{name}@{n} by {mine[name, n] - best[name, n]:g}" for name, n in chosen if mine[name, n] > best[name, n]]
    ties = len(chosen) - fewest - len(more)
    return (
        f"- {column}: fewer calls than every peer in {fewest} of {len(chosen)}"
        f"{'' if len(chosen) == len(table) else ' additive'} cells, {ties} ties, behind in "
        + (f"{len(more)}: {', '.join(more)}." if more else "none.")
    )


def _blocks(table: Table) -> str:
    """Say in which block cells a prior costs over a tenth more calls."""
    ratios = {}
    for key, row in table.items():
        if key[0].startswith("b"):
            calls = calls_of(row)
            ratios[f"{key[0]}@{key[1]}"] = calls["default, prior"] / calls["default"]
    over = [f"{cell} {ratio:.2f}" for cell, ratio in ratios.items() if ratio > 1.1]
    return f"- block cells, calls with the prior over calls without: above 1.1 in {', '.join(over) or 'none'}."


def _checked(table: Table, column: str) -> str:
    """Count the results of a column that are accepted and 1-minimal in truth."""
    runs = [run for row in table.values() for run in row[column]]
    signed = [run for (name, _), row in table.items() if name.startswith("d") for run in row[column]]
    return (
        f"- {column}: accepted {sum(r.valid for r in runs)} of {len(runs)}, 1-minimal {sum(r.minimal for r in runs)}; "
        f"of the non-monotone {len(signed)}: {sum(r.minimal for r in signed)}."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure as the command line says, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--cells", nargs="+", default=list(NOISELESS))
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--out", type=Path, help="write the table there, in Markdown")
    args = parser.parse_args(argv)
    seeds = range(args.first, args.first + args.seeds)
    text = (
        f"{versions()}; Python {sys.version.split()[0]}; seeds {seeds[0]}-{seeds[-1]}; median distinct calls "
        f"(median size).\n\n{render(measure(args.cells, args.n, seeds))}\n"
    )
    print(text)
    if args.out is not None:
        args.out.write_text(
            f"# Oracle calls\n\n`python -m benchmarks.ddmin.{Path(__file__).stem}`: {text}", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
