"""The pytest plugin: options, the fixtures ``teacher``, ``student`` and ``patch``, and the gate of a run.

The plugin does nothing unless a run is marked as a release gate. ``suites/conftest.py`` marks it, and so does an option
that names what to gate. Fixtures import what needs torch, in the process that runs tests, so ``pytest --help`` is fast.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from safety_harness.errors import HarnessError
from safety_harness.plugin import live, options, workers
from safety_harness.plugin.announce import announce
from safety_harness.plugin.collector import Collector
from safety_harness.plugin.fixtures import EXPLAINED, NO_STUDENT, PROPERTY, measure, patch, student, subject, teacher

if TYPE_CHECKING:
    from safety_harness.registry.load import Student

__all__ = ["measure", "patch", "student", "subject", "teacher"]

SUITES = "safety_harness.suites"
COLLECTOR = "safety-harness-collector"
STUDENTS: pytest.StashKey[tuple[Student, ...]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser.getgroup("safety-harness", "release gate for language models"))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist asks how many workers there may be
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Mark the run as a gate when the command line says what to gate.

    The suites' conftest.py may come too late for that: pytest reads it only on collection if the suites lie below the
    folder that it was given.
    """
    if options.names_students(config) or _names_packaged_suites(config):
        config.option.safety_suites = True
    if not config.option.pyargs:
        _require_suites(config)


def _require_suites(config: pytest.Config) -> None:
    """Refuse a folder of suites that is not there. With workers pytest would say for a minute nothing, and end with 5.

    Raises:
        UsageError: it is not there.
    """
    for argument in config.args:
        path = config.invocation_params.dir / argument.partition("::")[0]
        if not path.exists() and (config.option.safety_suites or "suites" in path.parts[-2:]):
            raise pytest.UsageError(
                f"{argument}: no such file or folder. In a clone, run in its top folder. Anywhere else the suites are "
                f"those of the package: pytest --pyargs {SUITES}"
            )


def _names_packaged_suites(config: pytest.Config) -> bool:
    """Return whether ``--pyargs`` names the suites of the package, whose conftest.py is read during collection only."""
    modules = [argument.partition("::")[0] for argument in config.args] if config.option.pyargs else []
    return any(module in ("safety_harness", SUITES) or module.startswith(f"{SUITES}.") for module in modules)


@pytest.hookimpl(trylast=True)  # after a conftest may have marked the run
def pytest_configure(config: pytest.Config) -> None:
    if not config.option.safety_suites:
        return
    students = _students(config)
    if not hasattr(config, "workerinput"):
        option = config.option
        collector = Collector(
            students, option.safety_subject, option.safety_report_dir, config.rootpath, option.safety_patches
        )
        if config.pluginmanager.register(collector, COLLECTOR) is None:
            raise pytest.UsageError(f"-p no:{COLLECTOR}: without it nothing is decided. Leave the option out.")
        announce(config, students)
        if board := live.open_board(config):
            config.pluginmanager.register(board, "safety-harness-board")
            if not config.getoption("numprocesses", None):
                config.pluginmanager.register(live.ProgressWriter(board.folder, "main"), "safety-harness-progress")
    elif folder := config.workerinput.get(live.FOLDER):
        writer = live.ProgressWriter(Path(folder), config.workerinput["workerid"])
        config.pluginmanager.register(writer, "safety-harness-progress")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End with 5, pytest's code for no tests, when a run skipped its suites for want of a student and ran nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus != pytest.ExitCode.OK or reporter is None:
        return
    ran = any(reporter.stats.get(kind) for kind in ("passed", "xfailed", "xpassed"))
    if not ran and any(NO_STUDENT in str(report.longrepr) for report in reporter.stats.get("skipped", ())):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def _students(config: pytest.Config) -> tuple[Student, ...]:
    """Return the students of this run. They are selected, and their files checked, once a process."""
    if STUDENTS not in config.stash:
        try:
            students = options.select_students(config)
            if not hasattr(config, "workerinput"):
                options.check_files(students, config.option.safety_patches, config.option.safety_report_dir)
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from error
        config.stash[STUDENTS] = students
    return config.stash[STUDENTS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    students = metafunc.config.stash.get(STUDENTS, None)
    if students and "student" in metafunc.fixturenames:
        ids = [student.id for student in students]
        metafunc.parametrize("student", students, ids=ids, indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let warnings be warnings while a student is measured, whatever the project's filters make of them.

    pytest sets the filters anew for each test. A remark of torch must not end hours of measurements.
    """
    if "student" in getattr(item, "fixturenames", ()):
        warnings.simplefilter("default")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Mark a failure that a required check of this test explains; of a student that is expected to fail, xfail it.

    An assertion about anything else is a broken test, also of a student that is expected to fail.
    """
    report = yield
    rows = [row for name, row in item.user_properties if name == PROPERTY and isinstance(row, dict)]
    if (
        report.when == "call"
        and call.excinfo
        and any(row["check"]["outcome"] != "pass" for row in rows if "check" in row)
    ):
        from safety_harness.gate.results import CheckFailed

        if call.excinfo.errisinstance(CheckFailed):
            report.user_properties.append((PROPERTY, EXPLAINED))
            student = getattr(getattr(item, "callspec", None), "params", {}).get("student")
            if student is not None and student.spec.expected == "fail":
                report.outcome = "skipped"
                report.wasxfail = "the registry expects this student to fail its gate"
    return report


@pytest.hookimpl(optionalhook=True, tryfirst=True)  # before xdist's own count
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return the number of workers for ``-n auto``. xdist asks before pytest_configure, so a run is marked earlier."""
    return workers.affordable_workers(_students(config)) if config.option.safety_suites else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    students = config.stash.get(STUDENTS, None)
    return workers.student_scheduler(config, log, students) if students else None
