"""Time a whole search against what it replaces: classic ddmin over whole modules, with plain probes.

    python -m benchmarks.speed.whole_search [--student json] [--questions 64] [--tokens 32] [--calls 1500] [--sample 6]

The search is the harness's own, with all that is not a probe (the prior above all). Next to it is what the paper does.
Classic ddmin starts from all of the teacher's modules (``--role gate``: from its gates alone). It takes modules out as
long as the student refuses as many questions as the search had to reach. It asks about no budget. That makes a plain
probe cheaper, and lets it start from the whole teacher, which keeps no skill.

The probes of classic ddmin are counted by asking our way, because the plain way would take hours. Their cost is the
mean of an evenly spaced sample, asked the plain way in the same run. Up to ``--calls`` probes are counted. If that
ends classic ddmin, the ratio is what it has reached by then, and the whole would be more. ``--journal FILE`` keeps the
answers, so that an interrupted count goes on. Writes ``benchmarks/speed/whole_search.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from tabulate import tabulate

from benchmarks import command
from benchmarks.speed.ways import Plain, Units, Way, evenly, limited, searched
from safety_harness import ddmin
from safety_harness.evaluation.budgets import recorded_budgets
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.evaluation.oracle import Oracle
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Verdict
from safety_harness.weights.units import flat, grouped


def refusing(evaluator: Evaluator, target: int) -> Callable[[Units], bool]:
    """Return a probe that asks our way: are *target* questions of the search split, which is one batch, refused?"""
    (block,) = evaluator.questions.harmful.search.blocks(evaluator.student.family.batch_size)

    def probe(units: Units) -> bool:
        answers = evaluator.answers(units, block, Extent.WHILE_UNDECIDED, max_broken_off=len(block) - target)
        return sum(answer.verdict is Verdict.REFUSED for answer in answers) >= target

    return probe


class PlainRefusals(Plain):
    """A plain probe that asks about refusals alone."""

    def __call__(self, units: Units) -> bool:
        with self._evaluator.transplanter.transplanted(units):
            self.verdicts = self._verdicts(self._oracle.harmful)
        return self.verdicts.count(Verdict.REFUSED) >= self._budgets.target


def counted(
    modules: Units, probe: Callable[[Units], bool], most: int, journal: Path | None, fingerprint: str
) -> tuple[ddmin.Reduction[Units], list[Units]]:
    """Run classic ddmin over *modules*, up to *most* probes; return its end, and the sets that this run probed."""
    probed: list[Units] = []

    def kept(groups: tuple[Units, ...]) -> bool:
        probed.append(flat(groups))
        return probe(probed[-1])

    def progress(event: ddmin.Event) -> None:
        if len(probed) % 25 == 0:
            print(event.phase, event.size, len(probed), flush=True)

    reduction = ddmin.minimize(
        grouped(modules, "module"),
        kept,
        strategy="ddmin",
        certificate="none",
        max_calls=most,
        journal=journal,
        fingerprint=fingerprint,
        on_event=lambda event: (
            print(event.phase, event.size, len(probed), flush=True) if len(probed) % 25 == 0 else None
        ),
    )
    return reduction, probed


def main() -> None:
    """Search, count the probes of classic ddmin, time a sample, and write the report."""
    parser = command.parser(__doc__)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--sample", type=int, default=6)
    parser.add_argument("--role", action="append", default=[], help="only modules of this role (the paper: gate)")
    parser.add_argument("--journal", type=Path)
    options = parser.parse_args()
    student = command.chosen(options)
    evaluator = limited(student, options.questions, options.tokens)
    ours = searched(evaluator)
    target = ours.patch.search.target
    print(ours.patch.reason, f"{ours.seconds:.0f} s", flush=True)

    evaluator = limited(student, options.questions, options.tokens)
    modules = tuple(unit for unit in evaluator.units if not options.role or unit.role in options.role)
    probe = refusing(evaluator, target)
    if not probe(modules):
        raise SystemExit(
            f"These {len(modules)} modules of the teacher do not refuse {target} questions: nothing to search."
        )
    asked = f"{student.id} {options.questions} {options.tokens} {target} {' '.join(options.role)}"
    reduction, probed = counted(modules, probe, options.calls, options.journal, asked)

    oracle = Oracle(evaluator)
    budgets = recorded_budgets(ours.patch.search, evaluator.student.search, oracle)
    plain, ours_again = Way(PlainRefusals(evaluator, oracle, budgets)), Way(probe)
    for units in evenly(probed, options.sample):
        plain(units)
        ours_again(units)
    given = f"--student {options.student} --questions {options.questions} --tokens {options.tokens}"
    given += f" --calls {options.calls} --sample {options.sample} --threads {options.threads}"
    kept = flat(reduction.kept)
    alike = sum(one is two for one, two in zip(plain.decisions, ours_again.decisions, strict=True))
    text = report(
        given + "".join(f" --role {role}" for role in options.role),
        [
            ("ours: channels, every budget", ours.patch.probes, ours.seconds, ours.patch.parameters),
            (
                "classic ddmin, plain: whole modules, no budget",
                reduction.calls,
                reduction.calls * mean(plain.seconds),
                sum(unit.parameters for unit in kept),
            ),
        ],
        evaluator.checkpoint.parameters,
        [
            f"Ours: {ours.patch.reason}. Asked for: {target} of {options.questions} refusals.",
            f"Classic ddmin began with {len(modules)} modules and came to {len(kept)}, "
            + ("its end." if reduction.stopped is None else f"not its end ({reduction.stopped})."),
            f"A plain probe took {mean(plain.seconds):.2f} s, the mean of {len(plain.seconds)}; {alike} of these "
            "decided as our way did.",
        ],
    )
    name = "whole_search" + "".join(f"_{role}" for role in options.role)
    (Path(__file__).parent / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def report(given: str, rows: Sequence[tuple[str, int, float, int]], total: int, lines: Sequence[str]) -> str:
    """Return the report as Markdown, of rows (name, probes, seconds, parameters moved) and a model of *total*."""
    seconds = rows[0][2]
    table = tabulate(
        [
            (name, probes, f"{took:.0f}", f"{took / seconds:.1f}", f"{100 * moved / total:.1f}")
            for name, probes, took, moved in rows
        ],
        ("a search by", "probes", "seconds", "times ours", "% parameters"),
        tablefmt="github",
        disable_numparse=True,
    )
    listed = "\n".join(f"- {line}" for line in lines)
    return f"# A whole search\n\n`python -m benchmarks.speed.whole_search {given}`\n\n{table}\n\n{listed}\n"


if __name__ == "__main__":
    main()
