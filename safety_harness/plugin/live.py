"""Show a line for each worker below the run's output, while a terminal watches.

Each worker writes its progress to a file of its own. The process that has the terminal reads these files a few times a
second, and draws them with :class:`safety_harness.plugin.board.Board`.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from safety_harness.progress import Progress, publish, subscribe, unsubscribe

if TYPE_CHECKING:
    from safety_harness.plugin.board import Board

FOLDER = "safety_progress"
"""Key of a worker's input under which the worker finds the folder to write to."""
# The board reads four times a second: a search that publishes every probe need not write more often.
SECONDS_BETWEEN_WRITES = 0.2


@dataclass(eq=False)  # pytest keeps plugins in sets
class ProgressWriter:
    """In a process that runs tests: write down what it is busy with."""

    folder: Path
    worker: str
    last_written: float = 0.0
    student: str = ""

    def pytest_sessionstart(self) -> None:
        subscribe(self.write)

    def pytest_sessionfinish(self) -> None:
        unsubscribe(self.write)
        self._file.unlink(missing_ok=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        params = getattr(getattr(item, "callspec", None), "params", {})
        self.student = getattr(params.get("gate_student"), "id", "")
        self._write_now(Progress(self.student, item.name.partition("[")[0].removeprefix("test_").replace("_", " ")))

    def pytest_runtest_logfinish(self) -> None:
        self.student = ""
        self._write_now(Progress("", "idle"))

    def _write_now(self, progress: Progress) -> None:
        self.last_written = 0.0
        publish(progress)

    def write(self, progress: Progress) -> None:
        """Write *progress* to this worker's file, unless the last write was just now."""
        now = time.monotonic()
        if now - self.last_written < SECONDS_BETWEEN_WRITES:
            return
        self.last_written = now
        with contextlib.suppress(OSError):  # no run may break because its progress cannot be shown
            draft = self._file.with_suffix(".draft")
            named = progress if progress.student else replace(progress, student=self.student)
            draft.write_text(json.dumps(asdict(named)), encoding="utf-8")
            draft.replace(self._file)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.worker}.json"


def open_board(config: pytest.Config) -> Board | None:
    """Return a board, or None where nobody watches or the terminal is needed for something else.

    That is: no terminal that can draw, a CI, a debugger, ``-s``, ``-q`` or ``--collect-only``.
    """
    option = config.option
    if os.environ.get("CI") or os.environ.get("TERM", "dumb") == "dumb":
        return None
    if option.collectonly or option.capture == "no" or option.usepdb or option.trace or config.get_verbosity() < 0:
        return None
    if config.pluginmanager.get_plugin("terminalreporter") is None:
        return None
    writer = config.get_terminal_writer()
    if not (writer.hasmarkup and writer._file.isatty()):
        return None
    from safety_harness.plugin.board import Board  # imports rich, which only a terminal needs

    try:
        return Board(config, Path(tempfile.mkdtemp(prefix="safety-harness-live-")))
    except OSError:  # no run may break because its progress cannot be shown
        return None
