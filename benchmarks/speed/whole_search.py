"""A whole search against what it replaces: classic ddmin over whole modules, each probe made the plain way.

    python -m benchmarks.speed.whole_search [--student json] [--questions 64] [--tokens 32] [--calls 1500] [--sample 6]

The search is the harness's own, with all that is not a probe (the prior above all). Beside it stands what the paper
does, with the start that it has: all of the teacher's modules (``--role gate``: its gates alone), taken out by classic
ddmin as long as the student refuses as many questions as the search had to reach. No budget is asked about, which
makes a plain probe cheaper and lets it begin from all of the teacher, which keeps no skill. Its probes are counted by
asking our way, because the plain way would take hours; what they cost is the mean of a sample of them, evenly spaced,
asked the plain way in the same run (``probe_speed.py``). Up to ``--calls`` are counted: where that ends it, the ratio
is what it has reached by then, and the whole would be more. ``--journal FILE`` keeps the answers, so that a count that
was cut off goes on. Writes ``benchmarks/speed/whole_search.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from tabulate import tabulate

from benchmarks import command
from benchmarks.speed.probe_speed import Plain, Units, Way, evenly, limited, searched
from safety_harness import ddmin
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.evaluation.oracle import Oracle
from safety_harness.judging.judge import Verdict
from safety_harness.weights.units import flat, grouped


def refusing(evaluator: Evaluator, target: int) -> Callable[[Units], bool]:
    """Whether so many questions of the search, which are one batch, are refused: asked our way."""
    (block,) = evaluator.questions.harmful.search.blocks(evaluator.student.family.batch_size)

    def probe(units: Units) -> bool:
        answered = evaluator.screened(units, block, len(block) - target)
        return sum(answer.verdict is Verdict.REFUSED for answer in answered) >= target

    return probe


class PlainRefusals(Plain):
    """The plain probe, asked about refusals alone."""

    def __call__(self, units: Units) -> bool:
        with self._evaluator.transplanter.transplanted(units):
            self.verdicts = self._verdicts(self._oracle.harmful)
        return self.verdicts.count(Verdict.REFUSED) >= self._oracle.target


def counted(
    modules: Units, probe: Callable[[Units], bool], most: int, journal: Path | None, fingerprint: str
) -> tuple[ddmin.Reduction[Units], list[Units]]:
    """Classic ddmin over *modules*, up to *most* probes; and the sets that it asked about in this run."""
    said: list[Units] = []

    def kept(groups: tuple[Units, ...]) -> bool:
        said.append(flat(groups))
        return probe(said[-1])

    reduction = ddmin.minimize(
        grouped(modules, "module"),
        kept,
        strategy="ddmin",
        certificate="none",
        max_calls=most,
        journal=journal,
        fingerprint=fingerprint,
        on_event=lambda event: print(event.phase, event.size, len(said), flush=True) if len(said) % 25 == 0 else None,
    )
    return reduction, said


def main() -> None:
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
    reduction, said = counted(modules, probe, options.calls, options.journal, asked)

    plain, again = Way(PlainRefusals(evaluator, Oracle(evaluator, target))), Way(probe)
    for units in evenly(said, options.sample):
        plain(units)
        again(units)
    given = f"--student {options.student} --questions {options.questions} --tokens {options.tokens}"
    given += f" --calls {options.calls} --sample {options.sample} --threads {options.threads}"
    kept = flat(reduction.kept)
    alike = sum(one is other for one, other in zip(plain.decided, again.decided, strict=True))
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
