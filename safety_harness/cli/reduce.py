"""``safety-harness reduce``: delta debugging of a file with a script, for anything."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from safety_harness import ddmin
from safety_harness.ddmin.filetest import Script, pieces
from safety_harness.files import write_whole

_ABOUT = """Reduce FILE to the pieces without which the script fails. The script is run with a candidate's path as its
last argument, in an empty directory, and exits 0 if the candidate still does what matters. Ctrl-C, an error or a
spent budget write down the best file so far."""


def add_reduce(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "reduce", help="reduce a file with a script that exits 0 on what matters", description=_ABOUT
    )
    parser.set_defaults(run=_reduce)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("script", nargs="+", metavar="SCRIPT", help="the script, and arguments that go before the path")
    parser.add_argument(
        "--out", type=Path, help="where the result goes (default: FILE with .reduced before its suffix)"
    )
    parser.add_argument(
        "--separator", default="\\n", help=r"where pieces end; \n, \t and the like work; '' is every byte"
    )
    parser.add_argument(
        "--strategy",
        choices=sorted(ddmin.STRATEGIES),
        default="halving",
        help="how (default: halving; adaptive trusts that more pieces never hurt)",
    )
    parser.add_argument(
        "--certificate",
        choices=("none", "monotone", "explicit", "confidence"),
        default="explicit",
        help="what is proven of each piece that is left (default: explicit, 1-minimal)",
    )
    parser.add_argument("--workers", type=int, default=1, help="scripts that run at the same time")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--calls", type=int, help="stop after so many runs of the script")
    parser.add_argument("--size", type=int, help="stop at so few pieces")
    parser.add_argument("--timeout", type=float, help="seconds for one run; a longer one has no answer")
    parser.add_argument("--flips", type=float, help="the share of runs that come out wrong, for a flaky script")
    parser.add_argument("--journal", type=Path, help="keep all answers there, to resume from")


def _reduce(options: argparse.Namespace) -> int:
    try:
        parts = pieces(options.file.read_bytes(), options.separator.encode().decode("unicode_escape").encode("latin-1"))
    except (OSError, UnicodeError) as error:
        print(f"safety-harness: {options.file} cannot be read: {error}", file=sys.stderr)
        return 2
    out = options.out or options.file.with_suffix(f".reduced{options.file.suffix}")
    script = Script(options.script, parts, options.file.name, options.timeout)
    try:
        result = _minimize(parts, script, options)
    except BaseException as error:
        best = ddmin.partial_result(error)
        if best is not None:
            _write(out, parts, best)
        if not isinstance(error, ddmin.DdminError):
            raise
        print(f"safety-harness: {error}", file=sys.stderr)
        return 2
    _write(out, parts, result)
    print(f"{out}: {result}; {result.calls} calls, {result.seconds:.1f} s")
    return 0


def _minimize(parts: list[bytes], script: Script, options: argparse.Namespace) -> ddmin.Reduction[int]:
    with ddmin.Progress() as progress:
        return ddmin.minimize(
            range(len(parts)),
            script,
            strategy=options.strategy,
            certificate=options.certificate,
            check_empty=True,
            max_calls=options.calls,
            max_seconds=options.seconds,
            target_size=options.size,
            workers=options.workers,
            on_event=progress,
            noise=None if options.flips is None else ddmin.Noise(options.flips),
            journal=options.journal,
            fingerprint="" if options.journal is None else script.fingerprint(),
        )


def _write(path: Path, parts: list[bytes], result: ddmin.Reduction[int]) -> None:
    write_whole(path, b"".join(parts[i] for i in result.kept))
