"""Run ``safety-harness report`` and ``merge``: show a results.json, or make one of several."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safety_harness.cli.common import LATEST, Commands, Parser, add_choice, add_json, chosen, command, show
from safety_harness.errors import ConfigError
from safety_harness.gate.results import Outcome, RunResult, schema
from safety_harness.registry.options import PREFIX, options_of, overrides
from safety_harness.registry.settings import GateSettings
from safety_harness.text import visible

if TYPE_CHECKING:
    from safety_harness.report.comparison import Versus

GITHUB = "github"
JSON = "json"
AS_STATED = (Outcome.PASS, Outcome.KNOWN_RED)
"""The outcomes of exit code 0: every student came out as the registry states."""


def add_report(commands: Commands[Parser]) -> None:
    """Add the commands ``report`` and ``merge``."""
    merged = command(
        commands,
        "merge",
        "make one results.json of several runs, as if all of their students had been gated in one",
        examples=[
            "one/results.json two/results.json --out results.json",
            "reports/*/latest/results.json --registry gate.toml --out results.json",
            "results.json --without-texts --out public.json",
        ],
        more="An inconclusive student may be measured again in a later run. Exit codes are those of `report`.",
    )
    merged.set_defaults(run=_merge)
    merged.add_argument("results", type=Path, nargs="+", help="the results.json of each run, in order")
    merged.add_argument("--out", type=Path, required=True, help="the results.json to write")
    merged.add_argument(
        "--anew",
        action="append",
        default=[],
        metavar="STUDENT",
        help="a student (family/name) that was decided before and has other weights or another search now: the later "
        "run counts, and the result says so; repeatable",
    )
    merged.add_argument(
        "--keep-first",
        action="store_true",
        help="a student may be decided in several runs, say on several machines: the first decision counts, and the "
        "result lists the later ones",
    )
    merged.add_argument(
        "--without-texts",
        action="store_true",
        help="leave out the texts of questions and answers, so that the result may be published; also of a single run",
    )
    add_choice(
        merged.add_argument_group(
            "completeness", "Students that have to be there: one that no run has makes the result inconclusive."
        )
    )
    add_json(merged)
    report = command(
        commands,
        "report",
        "show a results.json, or write it in other formats; exit 1 unless all is as the registry states",
        examples=[
            "--to html,junit",
            "results.json --against last/results.json --not-worse",
            "results.json --gate-dsr 0.9 --to html --out stricter",
        ],
        more="Prints Markdown, or writes files. Exit codes: 0 the gate passed (PASS), or its only failures are "
        "those that the registry states (KNOWN RED: these students may not ship); 1 neither; 2 wrong input.",
    )
    report.set_defaults(run=functools.partial(_report, report))
    report.add_argument("results", type=Path, nargs="?", default=LATEST, help=f"results.json (default: {LATEST})")
    report.add_argument(
        "--to", metavar="FORMATS", help="formats to write, separated by commas: md, html, csv, junit, json, github"
    )
    report.add_argument("--out", type=Path, help="folder for the files (default: the folder of the results)")
    changed = report.add_argument_group(
        "other thresholds",
        "Decide the run again by these, from what it recorded.\nNothing is asked, and the report says so at its top.",
    )
    for option in options_of("", GateSettings):
        changed.add_argument(f"{PREFIX}{option.name}", dest=option.dest, help=option.help, **option.about)
    report.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="labels of people (`safety-harness label`): decide the run again by the DSR that follows from them",
    )
    report.add_argument(
        "--against", type=Path, metavar="RESULTS", help="an earlier run: show what got better and worse"
    )
    report.add_argument(
        "--not-worse",
        action="store_true",
        help="exit 1 also if refusals, over-refusals or the own task are worse, or were not compared",
    )
    report.add_argument("--include-answers", action="store_true", help="show the models' answers, if the run kept them")
    report.add_argument(
        "--sbom",
        action="store_true",
        help="print the packages that the run used (CycloneDX), and nothing else",
    )
    report.add_argument(
        "--explain",
        action="store_true",
        help="print what each missed check measured, what it needs and which setting moves it, and nothing else",
    )
    report.add_argument("--json", action="store_true", help="print the results as JSON instead of Markdown")
    report.add_argument("--schema", action="store_true", help="print the JSON Schema of results.json, and nothing else")


def _report(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.schema:
        print(json.dumps(schema(), indent=1))
        return 0
    if options.not_worse and options.against is None:
        parser.error("--not-worse needs --against, the run to compare with")
    formats = _formats(options.to)
    from safety_harness.gate.reading import read_results  # brings scipy, which the other commands do without

    result = read_results(options.results)
    thresholds = overrides("", options)
    if thresholds or options.labels:
        result = _decided_again(result, thresholds, options)
    if options.sbom:
        from safety_harness.report.sbom import sbom

        print(sbom(result), end="")
        return 0
    if options.explain:
        from safety_harness.report.terminal import explained

        print(explained(result), end="")
        return 0 if result.outcome in AS_STATED else 1
    from safety_harness.report import markdown, write_formats
    from safety_harness.report.comparison import versus
    from safety_harness.report.github import SUMMARY, workflow_commands, write_summary

    against = versus(result, read_results(options.against), str(options.against)) if options.against else None
    shown: RunResult = result if options.include_answers else result.without_answers()
    if GITHUB in formats and not os.environ.get(SUMMARY):
        raise ConfigError(f"report --to github: {SUMMARY} names no file; it is set in a workflow's step.")
    files = [name for name in formats if name != GITHUB]
    _keep_apart(options, files, changed=bool(thresholds or options.labels))
    if not formats:
        print(shown.to_json() if options.json else markdown(shown, against), end="")
    for path in write_formats(shown, options.out or options.results.parent, files, against):
        print(path)
    if GITHUB in formats:
        write_summary(shown, against)
        for line in workflow_commands(shown):
            print(line)
    worse = _worse(against) if against and options.not_worse else []
    for line in worse:
        print(visible(f"against {options.against}: {line}"), file=sys.stderr)
    return 0 if result.outcome in AS_STATED and not worse else 1


def _decided_again(result: RunResult, thresholds: dict[str, object], options: argparse.Namespace) -> RunResult:
    """Return *result* by other thresholds, and by labels where there are some. Say which labels match no answer."""
    from safety_harness.gate.labels import labelable, matching, read_labels, unknown
    from safety_harness.gate.redecide import redecide

    labels = read_labels(options.labels) if options.labels else None
    again = redecide(result, thresholds, options.results.name, labels)
    if labels:
        known = {one for _, asked, questions in labelable(result) for one in matching(asked, questions, labels)}
        if said := unknown(labels, known, options.labels):
            print(visible(said), file=sys.stderr)
    return again


def _keep_apart(options: argparse.Namespace, formats: Sequence[str], *, changed: bool) -> None:
    """Check that no file of the run is written over: its results, or its reports by ones of *changed* thresholds.

    Raises:
        ConfigError: ``--out`` is missing, or names the run's own folder.
    """
    own = options.results.resolve().parent
    if (options.out or own).resolve() != own:
        return
    if changed and formats:
        raise ConfigError("report: decided again, so name another folder with --out; the run's own reports stand.")
    if JSON in formats:
        raise ConfigError(f"report --to json: name another folder with --out; {options.results} stands as it is.")


def _worse(against: Versus) -> list[str]:
    """Return what got worse, and what was not compared: neither proves that nothing got worse."""
    worsened = [f"{one.student}, {one.check}: worse, p {one.p_adjusted:.2g}" for one in against.worsened]
    return [*worsened, *against.uncompared]


def _merge(options: argparse.Namespace) -> int:
    from safety_harness.files import write_whole
    from safety_harness.gate.merge import merge
    from safety_harness.gate.reading import read_results
    from safety_harness.report import last_line
    from safety_harness.text import counted_noun

    runs = {str(path): read_results(path) for path in options.results}
    named = options.registry or options.family or options.student
    expected = [student.id for student in chosen(options)] if named else []
    result = merge(runs, options.anew, keep_first=options.keep_first, expected=expected)
    if options.without_texts:
        result = result.without_texts()
    write_whole(options.out, result.to_json())
    line = f"{options.out}: {counted_noun(len(result.students), 'student')}, {last_line(result)}"
    show(
        options,
        {"out": str(options.out), "outcome": result.outcome.value, "reasons": result.reasons},
        "\n".join([line, *result.reasons]),
    )
    return 0 if result.outcome in AS_STATED else 1


def _formats(text: str | None) -> list[str]:
    from safety_harness.report import WRITERS

    formats = list(dict.fromkeys(text.split(","))) if text else []
    known = [*WRITERS, GITHUB]
    if unknown := [name for name in formats if name not in known]:
        raise ConfigError(f"report --to: {unknown[0]!r} is no format. Known are {', '.join(known)}.")
    return formats


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
