"""Run the tests of one student in a process of a node, and return their reports as JSON text: all of them or none."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from safety_harness.errors import HarnessError, Remark
from safety_harness.evaluation.gpus import smallest_gib
from safety_harness.files import cache_dir, try_to_write
from safety_harness.plugin.alike import fault
from safety_harness.plugin.live import FOLDER
from safety_harness.plugin.lost import reason_of
from safety_harness.plugin.workers import FREE_CORES, free_cores

if TYPE_CHECKING:
    from warnings import WarningMessage

# Where a test module is imported by a process that has this package already, there is nothing to rewrite in it.
_QUIET = ("-W", "ignore:Module already imported so cannot be rewritten")
# pytest's own variables are as at the controller; of the others, those that a node has set itself stay.
OWN, COMMON = ("PYTEST_",), ("SAFETY_HARNESS_", "HF_", "TRANSFORMERS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_NEVER = ("TOKEN", "PYTEST_CURRENT_TEST", "PYTEST_XDIST")
SHARED = "shared-with-the-controller"


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those of the controller's *variables* that hold on the nodes, too. Tokens stay where they are."""
    return {
        name: value for name, value in variables.items()
        if name.upper().startswith((*OWN, *COMMON)) and not any(part in name.upper() for part in _NEVER)
    }  # fmt: skip


def survey(wanted: str) -> str:
    """Return what this node has otherwise than *wanted*, the memory of its smallest GPU, and how nice its tasks are.

    All of it as JSON text.
    """
    job = json.loads(wanted)
    with _variables(job["environment"]):
        return json.dumps({"fault": _checked(job), "gpu_gib": smallest_gib(), "nice": os.nice(0)})


def run(order: str, exchange: Any) -> str:
    """Run the tests of an *order*. Return their reports, or why there are none, as JSON text."""
    import ray

    from safety_harness.plugin.cluster.exchange import Mirror

    job = json.loads(order)
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a task that asked for none would see all of the node's
    with _variables(job["environment"]), tempfile.TemporaryDirectory(prefix="safety-harness-ray-") as folder:
        if trouble := fault(job["expected"]):
            return json.dumps({"trouble": trouble})
        os.chdir(job["folder"])
        # Other work than Ray's may keep some of them busy.
        worker = {"workerid": job["task"], FREE_CORES: min(job["cores"], free_cores()), FOLDER: folder}
        recorder = Recorder(job["nodeids"], worker, job["results"])
        said = io.StringIO()
        with Mirror(exchange, job["task"], Path(folder), shared=_is_shared(job["mark"])) as mirror:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = pytest.main([*_QUIET, *job["arguments"]], plugins=[recorder])
            files = mirror.files()
    lines = [line for line in said.getvalue().splitlines() if line.startswith("ERROR")]
    trouble = next(iter([*recorder.trouble, *lines, f"pytest ended with {int(code)}"]))
    return json.dumps(
        {"reports": recorder.whole(), "warnings": recorder.warnings, "trouble": trouble, "files": files}, default=str
    )


def _checked(job: Mapping[str, Any]) -> str:
    """Return in one line why this node cannot run tests; nothing if it can."""
    try:
        if not (wrong := fault(job["expected"])) and job["searches"]:
            try_to_write(cache_dir() / "patch")
    except HarnessError as error:
        return str(error)
    return wrong


def _is_shared(mark: str) -> bool:
    """Return whether this node's cache is the controller's, who left a *mark* there."""
    return (cache_dir() / mark).exists()


@contextlib.contextmanager
def _variables(given: Mapping[str, str]) -> Iterator[None]:
    """Set the variables *given* inside of the block: a process may serve several tasks."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith(OWN)]:
        del os.environ[name]
    try:
        os.environ.update({name: value for name, value in given.items() if name.startswith(OWN) or name not in before})
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@dataclass(eq=False)  # pytest keeps plugins in sets
class Recorder:
    """The plugin of a task: mark the process as a worker, keep the tests of its order, record what they report."""

    nodeids: list[str]
    workerinput: dict[str, Any]
    results: Mapping[str, str] = field(default_factory=dict)
    """Option -> the results.json that it names."""
    reports: list[Any] = field(default_factory=list)
    warnings: list[Any] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    broken_off: bool = False
    config: pytest.Config | None = None

    def whole(self) -> list[Any]:
        """Return all reports, or none where pytest broke off: a test may have reported its setup alone, as passed."""
        return [] if self.broken_off else self.reports

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> None:
        """Mark the process before any other plugin asks what it is."""
        early_config.workerinput = {"workercount": 1, "testrunuid": "", **self.workerinput}  # type: ignore[attr-defined]
        self.config = early_config

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        for name, file in self.results.items():
            setattr(config.option, name, Path(file) if file else None)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        wanted = set(self.nodeids)
        items[:] = [item for item in items if item.nodeid in wanted]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        assert self.config is not None
        self.reports.append(self.config.hook.pytest_report_to_serializable(config=self.config, report=report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.trouble.append(f"{report.nodeid}: {reason_of(report)}")

    def pytest_internalerror(self, excrepr: object) -> None:
        self.broken_off = True
        self.trouble.append(str(excrepr).strip().splitlines()[-1])

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note what broke off the tests; ``pytest.exit`` may choose any exit code, 0 too."""
        self.broken_off = True
        self.trouble.append(f"pytest was ended early ({type(excinfo.value).__name__}: {excinfo.value})")

    def pytest_warning_recorded(self, warning_message: WarningMessage, when: str, nodeid: str, location: Any) -> None:
        remark = issubclass(warning_message.category, Remark)
        file, line = warning_message.filename, warning_message.lineno
        self.warnings.append([remark, str(warning_message.message), file, line, when, nodeid, location])
