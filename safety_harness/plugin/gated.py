"""Make a run a release gate: select students, run the suites once for each, spread them over workers, decide.

No other run registers this module. Fixtures import what needs torch, in the process that runs tests.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from safety_harness.errors import HarnessError
from safety_harness.evaluation.gpus import Gpu, visible_gpus
from safety_harness.plugin import alike, hosts, live, options, workers
from safety_harness.plugin.announce import announce
from safety_harness.plugin.collector import Collector
from safety_harness.plugin.environment import PACKAGES, installed
from safety_harness.plugin.measure import EXPLAINED, PROPERTY
from safety_harness.registry.options import PREFIX

if TYPE_CHECKING:
    from safety_harness.registry.load import Student

COLLECTOR = "safety-harness-collector"
HOSTS = "safety-harness-hosts"
FREE_CORES: pytest.StashKey[dict[str, int]] = pytest.StashKey()
"""How many cores are idle on this host (an empty name), and on that of each proxy."""
GPUS: pytest.StashKey[tuple[Gpu, ...]] = pytest.StashKey()
NO_ATTACK = ""
STUDENTS: pytest.StashKey[tuple[Student, ...]] = pytest.StashKey()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    students = _students(config)
    if not hasattr(config, "workerinput"):
        option = config.option
        collector = Collector(
            students, option.safety_subject, option.safety_report_dir, config.rootpath, option.safety_patches,
            alone=f"{PREFIX}run" in config.invocation_params.args,
        )  # fmt: skip
        if config.pluginmanager.register(collector, COLLECTOR) is None:
            raise pytest.UsageError(f"-p no:{COLLECTOR}: without it nothing is decided. Leave the option out.")
        keys = [key for student in students if (key := getattr(student.spec.served, "key_env", None))]
        judges = [row for student in students for row in student.family.models_that_judge.values()]
        keys += [key for row in judges if (key := getattr(row, "key_env", None))]
        labels = [option.safety_labels] if option.safety_labels else []
        if hasattr(option, "tx") and hosts.check_specs(config):  # without xdist there is none
            files = [*option.safety_registry, *labels, *alike.sources(students)]
            config.pluginmanager.register(hosts.Hosts(files, keys), HOSTS)
        announce(config, students)
        board = live.open_board(config)
        if board:
            config.pluginmanager.register(board, "safety-harness-board")
            if not hosts.is_distributed(config) and not option.safety_ray:
                config.pluginmanager.register(live.ProgressWriter(board.folder, "main"), "safety-harness-progress")
        if option.safety_ray:
            _open_cluster(config, students, board.folder if board else None)
    elif folder := config.workerinput.get(live.FOLDER):
        writer = live.ProgressWriter(Path(folder), config.workerinput["workerid"])
        config.pluginmanager.register(writer, "safety-harness-progress")


def _open_cluster(config: pytest.Config, students: tuple[Student, ...], lines: Path | None) -> None:
    """Let a Ray cluster run the tests, and write its tasks' live *lines* into that folder."""
    from safety_harness.plugin.cluster.controller import open_cluster

    try:
        open_cluster(config, students, lines)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error


def _students(config: pytest.Config) -> tuple[Student, ...]:
    """Return the students of this run. They are selected, and their files checked, once a process."""
    if STUDENTS not in config.stash:
        try:
            students = options.select_students(config)
            options.settle_results(config)
            if not hasattr(config, "workerinput"):
                options.check_files(config, students)
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from error
        config.stash[STUDENTS] = students
    return config.stash[STUDENTS]


def pytest_report_header(config: pytest.Config) -> str:
    return options.registry_line(config, _students(config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    students = metafunc.config.stash.get(STUDENTS, None)
    if students and "gate_attack" in metafunc.fixturenames:
        pairs = [(student, name) for student in students for name in student.gate.attacks] or [(students[0], NO_ATTACK)]
        named = [f"{student.id}-{name}" for student, name in pairs]
        metafunc.parametrize(("gate_student", "gate_attack"), pairs, ids=named, indirect=True, scope="session")
    elif students and "gate_student" in metafunc.fixturenames:
        ids = [student.id for student in students]
        metafunc.parametrize("gate_student", students, ids=ids, indirect=True, scope="session")


@pytest.hookimpl(trylast=True)  # pytest itself sorts by pairs of student and attack
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drop the tests of an attack where a gate names none, and put those of a student together: it is loaded once."""
    items[:] = [item for item in items if _params(item).get("gate_attack") != NO_ATTACK]
    places = {at: student.id for at, item in enumerate(items) if (student := _params(item).get("gate_student"))}
    order = list(dict.fromkeys(places.values()))
    together = sorted(places, key=lambda at: order.index(places[at]))
    for at, item in zip(places, [items[at] for at in together], strict=True):
        items[at] = item


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let warnings be warnings while a student is measured, whatever the project's filters make of them.

    pytest sets the filters anew for each test. A remark of torch must not end hours of measurements.
    """
    if "gate_student" in getattr(item, "fixturenames", ()):
        warnings.simplefilter("default")
        warnings.simplefilter("error", pytest.PytestReturnNotNoneWarning)  # `return x` where `assert x` is meant


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Mark a failure that a required check of this test explains; of a student that is expected to fail, xfail it.

    Any other assertion is a check that failed. It is none of those that a known failure states, so that of a student
    that is expected to fail it is a broken test too.
    """
    report = yield
    student = _params(item).get("gate_student")
    rows = [row for name, row in item.user_properties if name == PROPERTY and isinstance(row, dict)]
    if (
        report.when == "call"
        and call.excinfo
        and any(row["check"]["outcome"] not in ("pass", "not counted") for row in rows if "check" in row)
    ):
        from safety_harness.gate.results import CheckFailed

        if call.excinfo.errisinstance(CheckFailed):
            report.user_properties.append((PROPERTY, EXPLAINED))
            if student is not None and student.spec.expected == "fail":
                report.outcome = "skipped"
                report.wasxfail = "the registry expects this student to fail its gate"
            return report
    if report.when == "call" and student is not None and call.excinfo and call.excinfo.errisinstance(AssertionError):
        report.user_properties += _as_check(item, call.excinfo, student)
    return report


def _params(item: pytest.Item) -> Mapping[str, Any]:
    """Return the parameters of a test by the names of their fixtures."""
    params: Mapping[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return params


def _as_check(
    item: pytest.Item, failure: pytest.ExceptionInfo[BaseException], student: Student
) -> list[tuple[str, object]]:
    """Return the rows of an assertion that failed, as a check of its test's name. Its values may quote an answer."""
    from safety_harness.gate.results import Check, Outcome, check_to_row

    name = item.nodeid.partition("[")[0].rpartition("/")[2]
    about = (getattr(getattr(item, "function", None), "__doc__", None) or "").strip().partition("\n")[0]
    where = f"{item.path.name}:{failure.traceback[-1].lineno + 1}"
    check = Check(name, Outcome.FAIL, f"{about or 'an assertion'} (failed at {where})")
    rows: list[tuple[str, object]] = [(PROPERTY, {"student": student.id, "check": check_to_row(check)})]
    return rows if student.spec.expected == "fail" else [*rows, (PROPERTY, EXPLAINED)]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker the idle cores of its host and how many share them, and the packages of this process."""
    known, proxy = node.config.stash.setdefault(FREE_CORES, {}), node.gateway.spec.via or ""
    if proxy not in known:
        others = node.config.pluginmanager.get_plugin(HOSTS)
        known[proxy] = others.cores_of(node) if proxy else workers.free_cores()
    node.workerinput[workers.FREE_CORES] = known[proxy]
    node.workerinput[workers.NEIGHBOURS] = sum((spec.via or "") == proxy for spec in node.nodemanager.specs)
    node.workerinput[PACKAGES] = installed()


def affordable_workers(config: pytest.Config) -> int:
    """Return the number of workers for ``-n auto``."""
    return workers.affordable_workers(_students(config), gpus=_gpus(config), ahead=config.option.safety_ahead)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """Give each worker its GPUs before it starts: torch looks for them once, when it is first asked."""
    for line in workers.pin(specs, _students(config), _gpus(config), config.option.safety_ahead):
        if collector := config.pluginmanager.get_plugin(COLLECTOR):
            collector.remarks[line] = None
        if terminal := config.pluginmanager.get_plugin("terminalreporter"):
            terminal.write_line(line)


def _gpus(config: pytest.Config) -> tuple[Gpu, ...]:
    """Return the GPUs of this run. Their free memory is asked once, before a worker takes some."""
    if GPUS not in config.stash:
        config.stash[GPUS] = visible_gpus()
    return config.stash[GPUS]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    students = config.stash.get(STUDENTS, None)
    return workers.student_scheduler(config, log, students) if students else None
