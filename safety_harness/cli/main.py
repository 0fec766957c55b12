"""Run the commands of ``safety-harness``: everything that is not a test run."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

from safety_harness import __version__
from safety_harness.cli.common import WRONG_USAGE, Parser
from safety_harness.cli.doctor import add_doctor
from safety_harness.cli.gate import add_gate
from safety_harness.cli.init import add_init
from safety_harness.cli.judge import add_judge
from safety_harness.cli.label import add_label
from safety_harness.cli.patch import add_patch
from safety_harness.cli.plan import add_plan
from safety_harness.cli.questions import add_questions
from safety_harness.cli.reduce import add_reduce
from safety_harness.cli.registry import add_registry
from safety_harness.cli.report import add_report
from safety_harness.cli.rules import add_rules
from safety_harness.cli.search import add_search
from safety_harness.errors import HarnessError, masked, missing_extra
from safety_harness.text import visible

_ABOUT = "Prepare a gate and ship its patch. Exit codes: 0 done, 1 the results say no, 2 wrong usage or input."
SHELLS = ("bash", "zsh", "tcsh")
# As a shell reports a program that SIGINT or SIGPIPE ended.
INTERRUPTED, BROKEN_PIPE = 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. This is the console script's entry point."""
    given = sys.argv[1:] if arguments is None else arguments
    wrong_usage = WRONG_USAGE
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="replace")  # a terminal may know fewer letters than a report has
    try:
        if not given:  # whoever types the name alone wants to know what there is
            parser().print_help(sys.stderr)
            return WRONG_USAGE
        options = parser().parse_args(given)
        wrong_usage = getattr(options, "wrong_usage", WRONG_USAGE)
        command: Callable[[argparse.Namespace], int] = options.run
        code = command(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # while a pipe that was closed can still be said
    except HarnessError as error:
        print(f"safety-harness: {visible(str(error))}", file=sys.stderr)
        return wrong_usage
    except BrokenPipeError:  # say of `| head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        print(f"safety-harness: {_of_system(error)}", file=sys.stderr)
        return wrong_usage
    except KeyboardInterrupt:
        print("safety-harness: interrupted. What was finished is kept.", file=sys.stderr)
        return INTERRUPTED
    return code


def _of_system(error: OSError) -> str:
    """Return what the system refused, with the file it was about."""
    about = f"{error.filename}: " if error.filename else ""
    return visible(masked(f"{about}{error.strerror or error}. Check the path, its permissions and the disk."))


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    program = Parser(prog="safety-harness", description=_ABOUT)
    program.add_argument("--version", action="version", version=__version__)
    program.add_argument(
        "--completion", action=_Completion, choices=SHELLS, help="print the completion script of a shell, and exit"
    )
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    add_init(commands)
    add_doctor(commands)
    add_gate(commands)
    add_rules(commands)
    add_judge(commands)
    add_questions(commands)
    add_registry(commands)
    add_plan(commands)
    add_search(commands)
    add_patch(commands)
    add_report(commands)
    add_label(commands)
    add_reduce(commands)
    return program


class _Completion(argparse.Action):
    """Print a shell's completion script. The commands' parsers are complete by the time an option is met."""

    def __call__(self, parser: argparse.ArgumentParser, *given: object) -> None:
        try:
            import shtab
        except ModuleNotFoundError as error:
            raise missing_extra("shtab", "completion", "--completion") from error
        print(shtab.complete(parser, shell=str(given[1])))
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
