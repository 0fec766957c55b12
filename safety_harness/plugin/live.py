"""A line for each worker below the run's output, while a terminal watches: what it is at, and how long it may take.

A worker leaves what it is at in a file of its own; the process with the terminal reads them a few times a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from safety_harness.search.progress import Progress, publish, subscribe, unsubscribe
from safety_harness.text import shortened

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

FOLDER = "safety_progress"
# Writing more often than anybody reads would only cost time.
PAUSE = 0.2
BAR = 16


@dataclass(eq=False)  # pytest keeps plugins in sets
class Teller:
    """In the process that runs tests: writes down what it is at."""

    folder: Path
    worker: str
    last_written: float = 0.0

    def pytest_sessionstart(self) -> None:
        subscribe(self.write)

    def pytest_sessionfinish(self) -> None:
        unsubscribe(self.write)
        self._file.unlink(missing_ok=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        params = getattr(getattr(item, "callspec", None), "params", {})
        student = getattr(params.get("student"), "id", "")
        self._write_now(Progress(student, item.name.partition("[")[0].removeprefix("test_").replace("_", " ")))

    def pytest_runtest_logfinish(self) -> None:
        self._write_now(Progress("", "idle"))

    def _write_now(self, moment: Progress) -> None:
        self.last_written = 0.0
        publish(moment)

    def write(self, moment: Progress) -> None:
        """Keep *moment*, unless one was kept just now."""
        now = time.monotonic()
        if now - self.last_written < PAUSE:
            return
        self.last_written = now
        with contextlib.suppress(OSError):  # what is shown is never worth a run
            draft = self._file.with_suffix(".draft")
            draft.write_text(json.dumps(asdict(moment)), encoding="utf-8")
            draft.replace(self._file)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.worker}.json"


@dataclass(eq=False)
class Board:
    """In the process that has the terminal: draws the workers' lines below whatever pytest writes."""

    config: pytest.Config
    folder: Path
    _live: Live | None = None
    _undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[FOLDER] = str(self.folder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        (self.folder / f"{node.gateway.id}.json").unlink(missing_ok=True)  # a worker that died leaves its line

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        from rich.console import Console
        from rich.live import Live

        writer = self.config.get_terminal_writer()
        # A stream of its own: what pytest writes to is captured while a test of this process runs.
        terminal = os.fdopen(os.dup(writer._file.fileno()), "w", encoding="utf-8")
        self._undo.callback(terminal.close)
        console = Console(file=terminal, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=console, get_renderable=self.drawn, refresh_per_second=4, transient=True, redirect_stdout=False,
            redirect_stderr=False,
        )  # fmt: skip
        above = _Above(self._live, terminal)
        self._undo.callback(setattr, writer, "_file", writer._file)
        writer._file = above
        self._live.start()
        self._undo.callback(above.end)
        self._undo.callback(self._live.stop)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._undo.close()

    def pytest_enter_pdb(self) -> None:
        self._undo.close()  # whoever debugs needs the terminal

    def pytest_unconfigure(self) -> None:
        self._undo.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def drawn(self) -> RenderableType:
        """A line a worker."""
        from rich.text import Text

        lines = [line(file.stem, moment) for file, moment in self._moments()]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")

    def _moments(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        for file in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):  # a worker that is just ending
                yield file, json.loads(file.read_text(encoding="utf-8"))


class _Above:
    """Where pytest writes while the board is drawn: a line goes out when it is whole, above the board."""

    def __init__(self, live: Live, file: Any) -> None:
        self._live, self._file, self._begun = live, file, ""

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        if whole:
            from rich.text import Text

            self._live.console.print(Text.from_ansi("\n".join(whole)), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        """A begun line waits for its end."""

    def end(self) -> None:
        """Write what is left, once the board is gone."""
        self._file.write(self._begun.rpartition("\r")[2])
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def line(worker: str, moment: Mapping[str, Any]) -> str:
    """What one worker is at, on one line of at most a hundred columns."""
    begun = f"{worker:<4} {shortened(str(moment['student'])):<24} "
    if moment["probes"] is None:
        return f"{begun}{moment['phase']}"
    found = f"{moment['probes']} probes, {moment['refused']}/{moment['asked']} refused"
    if moment["to_go"] is None:
        return f"{begun}{moment['phase']}: {found}"
    whole = moment["probes"] + moment["to_go"]
    done = round(BAR * moment["probes"] / whole) if whole else 0
    bar = "#" * done + "-" * (BAR - done)
    return f"{begun}[{bar}] {moment['size']} units, {found}, ~{_time(moment['rest'])} left"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def opened(config: pytest.Config) -> Board | None:
    """A board where somebody watches: a terminal that can draw, no CI, no debugger, nothing that asks for quiet."""
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
    try:
        return Board(config, Path(tempfile.mkdtemp(prefix="safety-harness-live-")))
    except OSError:  # what is shown is never worth a run
        return None
