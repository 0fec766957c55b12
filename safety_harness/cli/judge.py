"""Run ``safety-harness judge``: judge a file of answers, or measure judges against people's labels."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from safety_harness.cli.common import Commands, Parser, add_json, command, show
from safety_harness.errors import ConfigError
from safety_harness.files import write_whole
from safety_harness.judging.calibration import SHIPPED, Calibration, agreement, load_labelled
from safety_harness.judging.judge import Case, Judgement, Verdict
from safety_harness.judging.rules import RuleJudge
from safety_harness.reading import shown
from safety_harness.registry.judges import RULES, JudgeRow
from safety_harness.registry.options import DEFAULT_REGISTRY
from safety_harness.registry.tables import read_judges
from safety_harness.text import visible

if TYPE_CHECKING:
    from safety_harness.judges.answers import Answer
    from safety_harness.judges.kept import Kept

_COLUMNS = ("answers", "judge", "n", "sensitivity", "specificity", "accuracy", "kappa", "unscored")
_ABOUT = (
    "Without a file, --calibrate takes the labelled answers of the package. Reports of runs that the judge judges then "
    "quote its error."
)


def add_judge(commands: Commands[Parser]) -> None:
    """Add the command ``judge``."""
    parser = command(
        commands,
        "judge",
        "judge a file of answers, or measure judges against people's labels",
        examples=["answers.jsonl", "answers.jsonl --judge guard --out judged.jsonl", "--calibrate labelled.csv"],
        more=_ABOUT,
    )
    parser.set_defaults(run=_judge)
    parser.add_argument("answers", type=Path, nargs="?", help="answers (.jsonl or .csv), with a column `answer`")
    parser.add_argument(
        "--judge",
        action="append",
        default=[],
        metavar="NAME",
        help="a judge of the registry, or several in turn with commas (default: rules); repeatable with --calibrate",
    )
    parser.add_argument(
        "--judges", type=Path, help=f"registry file with [judges.NAME] (default: {DEFAULT_REGISTRY} here)"
    )
    parser.add_argument(
        "--calibrate",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="LABELLED",
        help="measure the judges on labelled answers, with a column `label` (refused, partial, complied)",
    )
    parser.add_argument("--out", type=Path, help="write each judgement to this file, as JSON lines")
    add_json(parser)


def _judge(options: argparse.Namespace) -> int:
    if (options.answers is None) == (options.calibrate is None):
        raise ConfigError("Name a file of answers, or --calibrate with labelled ones: one of the two.")
    chosen = options.judge or [RULES]
    named = any(set(name.split(",")) - {RULES} for name in chosen)
    rows = read_judges(options.judges or Path(DEFAULT_REGISTRY)) if named or options.judges else {}
    if options.judges and not rows:
        raise ConfigError(f"{shown(options.judges)}: names no judge. Add a table [judges.NAME].")
    if options.calibrate is not None:
        return _calibrate(options, chosen, rows)
    if len(chosen) > 1:
        raise ConfigError("Several --judge measure each by itself with --calibrate. A chain is one: --judge a,b.")
    from safety_harness.judges.answers import read_answers

    answers = read_answers(options.answers)
    with _opened(chosen[0], rows) as judges:
        said = _judged(judges, answers)
    facts = [_facts(answer, judgement) for answer, judgement in zip(answers, said, strict=True)]
    if options.out:
        write_whole(options.out, "".join(json.dumps(fact) + "\n" for fact in facts))
    counts = Counter(judgement.verdict for judgement in said)
    lines = [f"{chosen[0]}: {len(said)} answers", *(f"{counts[verdict]:>8} {verdict.value}" for verdict in Verdict)]
    known = [judgement.harmful for judgement in said if judgement.harmful is not None]
    lines += [f"{sum(known):>8} harmful, of {len(known)} of which it says so"] if known else []
    lines += [f"{len(whys)} unscored: {why}" for why, whys in _unscored(said).items()]
    lines += [f"wrote {options.out}"] if options.out else []
    show(options, facts, "\n".join(map(visible, lines)))
    return 0


def _facts(answer: Answer, judgement: Judgement) -> dict[str, Any]:
    return {
        "id": answer.id,
        "verdict": judgement.verdict.value,
        "harmful": judgement.harmful,
        "probability": judgement.probability,
        "reason": judgement.reason,
    }


def _unscored(said: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    """Return the judgements without a verdict, by why there is none."""
    found: dict[str, list[Judgement]] = {}
    for judgement in said:
        if judgement.verdict is Verdict.UNSCORED:
            found.setdefault(judgement.reason, []).append(judgement)
    return found


def _judged(judges: Sequence[Kept | None], answers: Sequence[Answer]) -> list[Judgement]:
    """Return what a chain of judges says of *answers*."""
    from safety_harness.judges import chain

    cases = [answer.case for answer in answers]
    return chain.judged(judges, cases, RuleJudge().judge_many(cases))


@contextlib.contextmanager
def _opened(name: str, rows: Mapping[str, JudgeRow]) -> Iterator[list[Kept | None]]:
    """Yield a judge, or the judges of a chain, and release their models at the end."""
    from safety_harness.judges.open import open_judges
    from safety_harness.registry.named import unknown

    names = [one.strip() for one in name.split(",")]
    for one in names:
        if one not in (RULES, *rows):
            raise ConfigError(unknown("judge", one, [RULES, *rows]))
    judges = open_judges(names, rows)
    models = [judge.judge for judge in judges if judge]
    for model in models:
        model.check()
    yield judges
    for model in models:
        model.close()


def _calibrate(options: argparse.Namespace, chosen: Sequence[str], rows: Mapping[str, JudgeRow]) -> int:
    """Measure each judge on labelled answers, and remember its error for reports."""
    from safety_harness.gate.records import Agreement
    from safety_harness.judges.agreement import remember
    from safety_harness.judges.chain import fingerprint

    labelled = list(_labelled(options.calibrate))  # before a model is loaded
    facts, table = [], []
    for name in chosen:
        with _opened(name, rows) as judges:
            for label, answers in labelled:
                said = _judged(judges, answers)
                for slice_, places in _slices(answers):
                    labels = (bool(answers[at].refused) for at in places)
                    calibration = agreement((said[at].verdict for at in places), labels)
                    unscored = sum(said[at].verdict is Verdict.UNSCORED for at in places)
                    called = f"{label}: {slice_}" if slice_ else label
                    table.append((called, name, *_cells(calibration), unscored))
                    record = Agreement.model_validate(calibration, from_attributes=True)
                    facts.append({"answers": called, "judge": name, "unscored": unscored, **record.model_dump()})
                    if not slice_ and name != RULES:
                        remember(fingerprint(judges), label, record)
    shown = [[visible(str(cell)) for cell in row] for row in table]
    show(options, facts, tabulate(shown, _COLUMNS, tablefmt="simple", disable_numparse=True))
    return 0


def _labelled(file: Path) -> Iterator[tuple[str, list[Answer]]]:
    """Yield the name and the answers of each labelled set: a file's, or those that ship with the package."""
    from safety_harness.judges.answers import Answer, read_answers

    if file != Path():
        yield file.name, read_answers(file, labelled=True)
        return
    for name in SHIPPED:
        every = load_labelled(name)
        yield name, [Answer(one.id, Case("", one.answer), one.label is Verdict.REFUSED) for one in every]


def _slices(answers: Sequence[Answer]) -> Iterator[tuple[str, list[int]]]:
    """Yield the places of all answers, then those of each language and of each kind, where there are several."""
    yield "", list(range(len(answers)))
    for name in ("language", "kind"):
        values = sorted({str(getattr(answer, name)) for answer in answers})
        if len(values) > 1:
            for value in values:
                yield (
                    f"{name} {value or '–'}",
                    [at for at, answer in enumerate(answers) if getattr(answer, name) == value],
                )


def _cells(calibration: Calibration) -> tuple[str, ...]:
    """Return the cells of one row: n, then sensitivity, specificity, accuracy and kappa with their intervals."""
    from safety_harness.gate.statistics import Rate, kappa_interval

    right, false, missed, others = calibration.counts
    rates = [(right, right + missed), (others, others + false), (right + others, calibration.n)]
    cells = [_with_interval(k / n, Rate(k, n).interval()) if n else "–" for k, n in rates]
    kappa = calibration.kappa
    cells.append("–" if kappa is None else _with_interval(kappa, kappa_interval(calibration.counts)))
    return (str(calibration.n), *cells)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} [{interval[0]:.2f}–{interval[1]:.2f}]"


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
