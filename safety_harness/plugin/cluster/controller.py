"""Hand each student's tests to one task of a Ray cluster, and replay the reports that come back."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from safety_harness.errors import ConfigError, HarnessError, Remark, masked, remark
from safety_harness.plugin.cluster import placing, task
from safety_harness.plugin.cluster.connect import connect
from safety_harness.plugin.cluster.exchange import Exchange, files_of, keep, marked_cache
from safety_harness.plugin.cluster.jobs import Job, cause_of, prepared

if TYPE_CHECKING:
    from safety_harness.registry.load import Student

NAME = "safety-harness-ray"
# A node may come back within this time. A run must not hang, and the next one goes on from the journals.
SECONDS_WITHOUT_NODE = 10
SECONDS_BETWEEN_LOOKS = 1.0
# A terminal serves one process at a time, and the processes of xdist are none of Ray's.
_ALONE = {"numprocesses": "-n", "tx": "--tx", "usepdb": "--pdb", "trace": "--trace"}


def open_cluster(config: pytest.Config, students: Sequence[Student], board: Path | None) -> None:
    """Connect to the cluster of ``--gate-ray``, and let it run the tests. *board* is the folder of live lines.

    Raises:
        HarnessError: as :func:`connect`, or another option is of no use with it.
    """
    option = config.option
    for name, flag in _ALONE.items():
        if getattr(option, name, None):
            raise ConfigError(f"--gate-ray runs tests on other machines, where {flag} is of no use. Leave one out.")
    if not any(getattr(option, name, False) for name in ("collectonly", "setuponly", "setupplan")):
        connect(option.safety_ray, insecure=option.safety_ray_insecure)
        config.pluginmanager.register(ClusterRun(config, students, board), NAME)


@dataclass(eq=False)  # pytest keeps plugins in sets
class ClusterRun:
    """The plugin of the controller: run the collected tests on the cluster."""

    config: pytest.Config
    students: Sequence[Student]
    board: Path | None
    order: dict[str, Any] = field(default_factory=dict)
    """What every task is told."""
    found: dict[str, dict[str, str]] = field(default_factory=dict)
    """Key of a search that a task asked for -> what this machine's cache has of it."""
    running: dict[Any, Job] = field(default_factory=dict)
    """Ray's reference of a task -> its job."""
    exchange: Any = None
    submit: Any = None

    def pytest_report_header(self) -> str:
        answers = " and answers" if self.config.option.safety_include_answers else ""
        token = "NO token, as --gate-ray-insecure says" if self.config.option.safety_ray_insecure else "token"
        return (
            f"ray: {self.config.option.safety_ray} (authentication: {token}). Verdicts, questions{answers}, which may "
            "be harmful, cross its network unencrypted"
        )

    def pytest_unconfigure(self) -> None:
        import ray

        ray.shutdown()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run what was collected. Whatever a task does not report has failed.

        Raises:
            UsageError: a node differs from this machine, or none has what a student needs.
        """
        if session.testsfailed and not self.config.option.continue_on_collection_errors:
            raise session.Interrupted(f"{session.testsfailed} files or folders could not be collected")
        try:
            self.order, jobs = prepared(session, self.students, self._say)
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from error
        with marked_cache() as self.order["mark"]:
            # A process in which torch has started would answer on the GPU of its first task.
            self._start(fresh=any("GPU" in job.need for job in jobs))
            self._run(session, jobs)
        return True

    def _start(self, *, fresh: bool) -> None:
        """Start the actor on this node, and settle whether each task has a *fresh* process."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.exchange = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Exchange).remote()
        self.submit = ray.remote(max_calls=int(fresh), max_retries=0)(task.run)

    def _run(self, session: pytest.Session, jobs: Sequence[Job]) -> None:
        """Run *jobs*, and replay what comes back, in the order in which it does."""
        import ray

        for job in jobs:
            self._submit(job)
        looked = time.monotonic()
        while self.running:
            done, _ = ray.wait(list(self.running), timeout=SECONDS_BETWEEN_LOOKS)
            for reference in done:
                self._end(session, reference, self.running.pop(reference))
            if time.monotonic() - looked >= SECONDS_BETWEEN_LOOKS:
                looked = time.monotonic()
                self._trade()
                self._give_up(session)
        self._trade()

    def _submit(self, job: Job) -> None:
        job.attempts += 1
        nodeids = [item.nodeid for item in job.items]
        order = {
            **self.order,
            "task": job.line,
            "cores": int(job.need["CPU"]),
            "nodeids": nodeids,
        }
        chosen = {"name": f"gate {job.name}", **placing.options(job.need)}
        self.running[self.submit.options(**chosen).remote(json.dumps(order), self.exchange)] = job

    def _end(self, session: pytest.Session, reference: Any, job: Job) -> None:
        """Replay what a task returned. If it was lost, try its job again, or say that no report came."""
        import ray

        reports: dict[str, list[pytest.TestReport]] = {}
        self._trade()  # what an attempt that died told last, before the next one asks for it
        try:
            answer = json.loads(ray.get(reference))
            trouble = str(answer["trouble"])
            self._keep(answer.get("files", {}))
            for row in answer.get("warnings", ()):
                self._warn(*row)
            reports = self._read(answer.get("reports", ()))  # last: of an answer that is damaged, none count
        except ray.exceptions.RayTaskError as error:
            trouble = cause_of(error)
        except ray.exceptions.RayError as error:
            attempts = 1 + self.config.option.safety_ray_retries
            trouble = f"attempt {job.attempts} of {attempts} was lost. {cause_of(error)}"
            if job.attempts < attempts:
                self._say(f"{job.name}: {trouble} It is tried again, and goes on from its journal.")
                self._submit(job)
                return
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            trouble = f"what its task returned cannot be read ({type(error).__name__})"
        self._replay(session, job, reports, trouble)

    def _read(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[pytest.TestReport]]:
        """Return the reports of a task by their test."""
        reports: dict[str, list[pytest.TestReport]] = {}
        for row in rows:
            if isinstance(row["longrepr"], list):
                row["longrepr"] = tuple(row["longrepr"])  # as pytest's own summary demands of a skipped test
            report = self.config.hook.pytest_report_from_serializable(config=self.config, data=row)
            reports.setdefault(report.nodeid, []).append(report)
        return reports

    def _replay(
        self, session: pytest.Session, job: Job, reports: Mapping[str, list[pytest.TestReport]], trouble: str
    ) -> None:
        """Let every plugin of this process see the tests of *job* as if they had run here."""
        hook = self.config.hook
        for item in job.items:
            lost = masked(f"{job.name}: no report came of this test: {trouble}")
            failed = pytest.TestReport(item.nodeid, item.location, {}, "failed", lost, "call")
            hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            for report in reports.get(item.nodeid, [failed]):
                hook.pytest_runtest_logreport(report=report)
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        if self.board:
            (self.board / f"{job.line}.json").unlink(missing_ok=True)

    def _give_up(self, session: pytest.Session) -> None:
        """End the jobs that no node can run any more: Ray would wait for one without end."""
        import ray

        nodes = placing.nodes_with(self.config.option.safety_ray_resource)
        for reference, job in list(self.running.items()):
            if placing.fits(job.need, nodes):
                job.unfit_since = None
                continue
            job.unfit_since = job.unfit_since or time.monotonic()
            if time.monotonic() - job.unfit_since > SECONDS_WITHOUT_NODE:
                del self.running[reference]
                ray.cancel(reference, force=True)
                self._replay(session, job, {}, placing.misfit(job.need, nodes))

    def _trade(self) -> None:
        """Take the tasks' live lines and files, and give them what this machine's cache has."""
        import ray

        try:
            told = json.loads(ray.get(self.exchange.trade.remote(json.dumps(self.found)), timeout=10))
        except ray.exceptions.RayError:
            return  # an actor that is started again knows nothing; lines and files come again
        self._keep(told["files"])
        self.found = {key: files_of(key) for key in told["asked"]}
        busy = {job.line for job in self.running.values()} if self.board else ()
        for name, line in told["lines"].items():
            if self.board and line and name in busy:
                with contextlib.suppress(OSError):  # no run may break because its progress cannot be shown
                    (self.board / f"{name}.json").write_text(line, encoding="utf-8")

    def _keep(self, files: Mapping[str, str]) -> None:
        try:
            keep(files)
        except HarnessError as error:
            remark(f"What a node found is used, but could not be kept here. {error}")

    def _warn(self, is_remark: bool, text: str, file: str, line: int, when: str, nodeid: str, place: Any) -> None:
        """Record a warning of a task, of which only the text is believed."""
        category = Remark if is_remark else UserWarning
        message = warnings.WarningMessage(category(text), category, file, line)
        self.config.hook.pytest_warning_recorded.call_historic(
            kwargs={"warning_message": message, "when": when, "nodeid": nodeid, "location": place and tuple(place)}
        )

    def _say(self, line: str) -> None:
        if reporter := self.config.pluginmanager.get_plugin("terminalreporter"):
            reporter.ensure_newline()
            reporter.write_line(f"ray: {line}")
