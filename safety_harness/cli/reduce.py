"""Run ``safety-harness reduce``: delta debugging of any file with a script."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from safety_harness import ddmin
from safety_harness.cli.common import Commands, Parser, add_json, command, show
from safety_harness.ddmin.filetest import Script, pieces
from safety_harness.errors import HarnessError
from safety_harness.files import write_whole
from safety_harness.reading import MIB, Reader

_FILE = Reader(HarnessError, advice="Name a file to reduce.", at_most=64 * MIB)

_ABOUT = """The script is run with a candidate's path as its last argument, in an empty directory.
It exits 0 if the candidate still does what matters. After Ctrl-C, an error or a spent budget, the best file so far is
written."""


def add_reduce(commands: Commands[Parser]) -> None:
    """Add the command ``reduce``."""
    parser = command(
        commands,
        "reduce",
        "reduce a file with a script that exits 0 on what matters",
        examples=["crash.py ./still_crashes.sh", "notes.txt --separator '\\n\\n' -- grep -q needle"],
        more=_ABOUT,
    )
    parser.set_defaults(run=_reduce)
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to reduce; it is never changed")
    parser.add_argument("script", nargs="+", metavar="SCRIPT", help="the script, and its arguments before the path")
    parser.add_argument(
        "--out", type=Path, help="where the result goes (default: FILE with .reduced before its suffix)"
    )
    parser.add_argument(
        "--separator",
        default="\\n",
        help=r"text that ends each piece; \n, \t and the like work, '' makes each byte a piece (default: \n)",
    )
    parser.add_argument(
        "--strategy",
        choices=sorted(ddmin.STRATEGIES),
        default="halving",
        help="order of the search (default: halving, for texts; adaptive trusts that more pieces never hurt)",
    )
    parser.add_argument(
        "--certificate",
        choices=get_args(ddmin.Level),
        default="explicit",
        help="how well each piece that is left is proven to be needed (default: explicit, tested one by one)",
    )
    parser.add_argument("--workers", type=int, default=1, help="scripts that run at the same time (default: 1)")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--calls", type=int, help="stop after this many runs of the script")
    parser.add_argument("--size", type=int, help="stop at this many pieces or fewer")
    parser.add_argument("--timeout", type=float, help="seconds for one run; a run that takes longer has no answer")
    parser.add_argument("--flips", type=float, help="share of runs that come out wrong, for a flaky script")
    parser.add_argument("--journal", type=Path, help="file that keeps all answers, to resume from")
    add_json(parser)


def _reduce(options: argparse.Namespace) -> int:
    """Reduce the file, and write the result or the best file so far."""
    try:
        separator = options.separator.encode().decode("unicode_escape").encode("latin-1")
    except UnicodeError as error:
        raise HarnessError(f"--separator {options.separator!r} cannot be read: {error}.") from error
    parts = pieces(_FILE.content(options.file), separator)
    out = options.out or options.file.with_suffix(f".reduced{options.file.suffix}")
    script = Script(options.script, parts, options.file.name, options.timeout)
    try:
        result = _minimize(parts, script, options)
    except BaseException as error:  # even SystemExit carries a partial result that took long to find
        best = ddmin.partial_result(error)
        if best is not None:
            _write(out, parts, best)
        if not isinstance(error, ddmin.DdminError):
            raise
        print(f"safety-harness: {error}", file=sys.stderr)  # DdminError is no HarnessError: ddmin stands alone
        return 2
    _write(out, parts, result)
    facts = {"out": str(out), "pieces": len(result.kept), "of": len(parts), "calls": result.calls}
    show(
        options, {**facts, "seconds": result.seconds}, f"{out}: {result}; {result.calls} calls, {result.seconds:.1f} s"
    )
    return 0


def _minimize(parts: list[bytes], script: Script, options: argparse.Namespace) -> ddmin.Reduction[int]:
    """Reduce the positions in *parts* as the command line says, with live progress on a terminal."""
    with ddmin.Progress() as progress:
        return ddmin.minimize(
            range(len(parts)),
            script,
            strategy=options.strategy,
            certificate=options.certificate,
            check_empty=True,  # a script that accepts an empty file is most likely wrong, and one run shows it
            max_calls=options.calls,
            max_seconds=options.seconds,
            target_size=options.size,
            workers=options.workers,
            on_event=progress,
            noise=None if options.flips is None else ddmin.Noise(options.flips),
            journal=options.journal,
            # The fingerprint reads every file that the command names, so it is taken only where it serves.
            fingerprint="" if options.journal is None else script.fingerprint(),
        )


def _write(path: Path, parts: list[bytes], result: ddmin.Reduction[int]) -> None:
    """Write the pieces that were kept."""
    write_whole(path, b"".join(parts[i] for i in result.kept))


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
