"""Draw the progress of every worker below whatever pytest writes to the terminal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from safety_harness.plugin.live import FOLDER
from safety_harness.progress import Progress, words
from safety_harness.text import shortened

NAME_COLUMNS = 24
BAR_COLUMNS = 16
DEFAULT_COLUMNS = 80
"""Width of a terminal that does not know its own."""


@dataclass(eq=False)  # pytest keeps plugins in sets
class Board:
    """In the process that has the terminal: draw what the workers' files in *folder* say."""

    config: pytest.Config
    folder: Path
    _undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[FOLDER] = str(self.folder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        (self.folder / f"{node.gateway.id}.json").unlink(missing_ok=True)  # a worker that died leaves its file

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        writer = self.config.get_terminal_writer()
        # A stream of its own: the one that pytest writes to is captured while a test of this process runs.
        terminal = os.fdopen(os.dup(writer._file.fileno()), "w", encoding="utf-8")
        self._undo.callback(terminal.close)
        console = Console(file=terminal, force_terminal=True, highlight=False, markup=False, emoji=False)
        live = Live(
            console=console, get_renderable=lambda: self._drawn(console), refresh_per_second=4, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        above = _Above(live, terminal)
        # pytest has no public way to write elsewhere once its reporter is there.
        self._undo.callback(setattr, writer, "_file", writer._file)
        writer._file = above
        live.start()
        self._undo.callback(above.end)
        self._undo.callback(live.stop)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._undo.close()

    def pytest_enter_pdb(self) -> None:
        self._undo.close()  # a debugger needs the terminal

    def pytest_unconfigure(self) -> None:
        self._undo.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _drawn(self, console: Console) -> Table:
        # rich would ask the standard streams, which are captured while a test of this process runs.
        with contextlib.suppress(OSError):  # a terminal that was just closed
            console.width = os.get_terminal_size(console.file.fileno()).columns or DEFAULT_COLUMNS
        # Only the last column may shrink, so a line that is too long is cut at its end.
        lines = Table.grid(*(Column(no_wrap=at < 3) for at in range(4)), padding=(0, 1))
        for file in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):  # a worker that is just ending
                lines.add_row(*row(file.stem, json.loads(file.read_text(encoding="utf-8"))))
        return lines


class _Above:
    """The stream that pytest writes to while the board is drawn: a line is shown above it once it is whole.

    rich's own proxy ends a line at each flush, and pytest flushes after each dot.
    """

    def __init__(self, live: Live, file: Any) -> None:
        self._live, self._file, self._begun = live, file, ""

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        if whole:
            self._live.console.print(Text.from_ansi("\n".join(whole)), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        """Do nothing: a begun line waits for its end."""

    def end(self) -> None:
        """Write the begun line, once the board is gone."""
        self._file.write(self._begun.rpartition("\r")[2])
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def row(worker: str, progress: Mapping[str, Any]) -> tuple[RenderableType, ...]:
    """Return the columns of a worker's line, given the fields of its ``Progress``: at most 100 characters in all."""
    bar: RenderableType = ""
    text = words(Progress(**progress))
    left = "?" if progress["rest"] is None else timedelta(seconds=round(progress["rest"]))
    if progress["of"]:
        bar = ProgressBar(progress["of"], progress["done"], width=BAR_COLUMNS)
        text = f"{text}, ~{left} left"
    if progress["probes"] is not None:
        probed = f"{progress['probes']} probes, {progress['refused']}/{progress['asked']} refused"
        text = f"{text}: {probed}"
    if progress["to_go"] is not None:
        total = progress["probes"] + progress["to_go"] or 1  # rich draws 0 of 0 as a full bar
        bar = ProgressBar(total, progress["probes"], width=BAR_COLUMNS)
        text = f"{progress['size']} units, {probed}, ~{left} left"
    name = shortened(progress["student"], NAME_COLUMNS)
    return f"{worker:<4}", f"{name:<{NAME_COLUMNS}}", bar, Text(text, no_wrap=True, overflow="ellipsis")
