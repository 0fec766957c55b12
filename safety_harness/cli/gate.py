"""Run ``safety-harness gate``: the suites under pytest, apart from whatever pytest is told in the current folder."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from safety_harness.cli.common import Commands, Parser
from safety_harness.errors import ConfigError
from safety_harness.registry.options import DEFAULT_REGISTRY, OPTIONS, PREFIX, SEARCH, Option, settings_options

_ABOUT = """\
Run the suites of the release gate: `pytest --pyargs safety_harness.suites`, from
any folder, whatever pytest is told there. Exit codes: 0 passed (or known red),
1 failed, 10 inconclusive, 2 interrupted, 4 wrong usage or input.

No pytest.ini, conftest.py or variable PYTEST_... is read, and of other plugins
only those that are named: `-- -p pytest_html --html page.html`."""
_EXAMPLES = f"""\
examples:
  safety-harness gate                           every student of {DEFAULT_REGISTRY} here
  safety-harness gate --student our-release     one student
  safety-harness gate --subject student         the students as they are, unpatched
  safety-harness gate --family tiny             the embedded students, as a trial
  safety-harness gate --patches reports/latest/results.json --report-dir again
  safety-harness gate --gate-dsr 0.9 -n 1 -- -x --junitxml tests.xml"""
# `run` is what the command is for.
_BARE = tuple(option for option in OPTIONS if option.name != "run")
WRONG_USAGE = 4
# What a project may have told pytest, and what it must not be told of a gate.
_APART = ("-c", os.devnull, "-p", "no:cacheprovider", "--disable-plugin-autoload")
_PLUGINS = ("-p", "safety_harness.plugin", "-p", "xdist.plugin")


def add_gate(commands: Commands[Parser]) -> None:
    """Add the command ``gate``."""
    gate = commands.add_parser(
        "gate",
        help="gate students: search or reproduce their patches, measure, decide, report",
        usage="%(prog)s [OPTIONS] [-- ARGUMENTS OF PYTEST]",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # pytest's own code for it; 2 is that of an interrupted run.
    gate.wrong_usage = WRONG_USAGE
    gate.set_defaults(run=_gate, wrong_usage=WRONG_USAGE)
    _add(gate.add_argument_group("what to gate"), _BARE, "--")
    gate.add_argument(
        "--suites",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="run a suite of your own too (a file or a folder); repeatable",
    )
    gate.add_argument(
        "-n",
        dest="processes",
        metavar="N",
        help="number of worker processes, 0 for none (default: auto, as many as cores, memory and students allow; none "
        "with --ray)",
    )
    gate.add_argument("pytest", nargs="*", metavar="ARGUMENT", help="an argument of pytest, after `--`")
    settings = settings_options()
    _add(gate.add_argument_group("thresholds"), (each for each in settings if not each.name.startswith(SEARCH)), PREFIX)
    _add(gate.add_argument_group("search"), (each for each in settings if each.name.startswith(SEARCH)), PREFIX)


def command(options: argparse.Namespace) -> list[str]:
    """Return the command line of Python that runs the gate.

    Raises:
        ConfigError: nothing says what to gate, or a suite is not there.
    """
    if not (options.safety_registry or options.safety_family or Path(DEFAULT_REGISTRY).is_file()):
        raise ConfigError(
            f"No {DEFAULT_REGISTRY} in {Path.cwd()}. Write one with `safety-harness init`, name yours with --registry, "
            "or try the embedded students with --family tiny."
        )
    if missing := [suite for suite in options.suites if not suite.exists()]:
        raise ConfigError(f"--suites: {missing[0]} does not exist. Name a file or a folder.")
    own = [str(suite.resolve()) for suite in options.suites]
    # A conftest.py above the suites is a project's, and none of theirs. Those of the package need none: the plugin has
    # all that theirs has.
    conftests = [f"--confcutdir={_folder_of(own)}"] if own else ["--noconftest"]
    given = [
        argument
        for option in (*_BARE, *settings_options())
        for argument in _written(option, getattr(options, option.dest))
    ]
    return [
        sys.executable, "-m", "pytest", _packaged_suites(), *own, "--gate-run", *_APART, *_PLUGINS, *conftests,
        f"--rootdir={Path.cwd()}", *workers(options), *given, *options.pytest,
    ]  # fmt: skip


def workers(options: argparse.Namespace) -> list[str]:
    """Return pytest's option for the number of workers; none where its arguments name them, as on other hosts."""
    if any(given.startswith("--tx") for given in options.pytest):
        return []
    return ["-n", options.processes or ("0" if options.safety_ray else "auto")]


def _gate(options: argparse.Namespace) -> int:
    """Become pytest, whose exit code is then this command's."""
    arguments, environment = command(options), _environment(os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":  # where a process that becomes another one has ended for whoever waits
        os.execve(arguments[0], arguments, environment)
    return subprocess.run(arguments, env=environment, check=False).returncode


def _add(group: argparse._ArgumentGroup, options: Iterable[Option], prefix: str) -> None:
    for option in options:
        group.add_argument(f"{prefix}{option.name}", dest=option.dest, help=option.help, **option.about)
        if prefix != PREFIX:  # messages of the run call it by its name for pytest
            hidden = {**option.about, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            group.add_argument(f"{PREFIX}{option.name}", dest=option.dest, **hidden)


def _written(option: Option, value: object) -> list[str]:
    """Return how pytest's command line says the *value* of an option; nothing where it is the default."""
    if value in (None, option.about.get("default", False)):
        return []
    if value is True:
        return [f"{PREFIX}{option.name}"]
    # In one argument with its name: pytest would take a path of its own for a folder of tests.
    return [f"{PREFIX}{option.name}={one}" for one in (value if isinstance(value, list) else [value])]


def _packaged_suites() -> str:
    """Return the folder of the suites: in the installed package, or beside it in a clone."""
    package = Path(str(resources.files("safety_harness")))
    return str(next(folder for folder in (package / "suites", package.parent / "suites") if folder.is_dir()))


def _folder_of(suites: Sequence[str]) -> str:
    """Return the folder that holds every one of *suites*."""
    return os.path.commonpath([suite if Path(suite).is_dir() else Path(suite).parent for suite in suites])


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return *variables* without those that pytest reads. Modules of the current folder are not imported."""
    kept = {name: value for name, value in variables.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTHONSAFEPATH": "1"}  # workers do not inherit the interpreter's options


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
