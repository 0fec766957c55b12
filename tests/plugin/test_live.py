"""Check the line of each worker that is drawn below a run: for a terminal, and for nothing else."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console
from rich.table import Table

from safety_harness.plugin.board import row
from safety_harness.plugin.live import ProgressWriter
from safety_harness.progress import Progress, publish
from tests.plugin.conftest import ROOT, RUN, write_project

SEARCH = Progress("smollm2/arithmetic", "reduce", size=22, probes=41, refused=71, asked=96, to_go=123, rest=1845.0)


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (SEARCH, "gw11 smollm2/arithmetic       ━━━━             22 units, 41 probes, 71/96 refused, ~0:30:45 left"),
        (
            Progress("a/b", "ranking", rest=61.0, done=8, of=32),
            "gw11 a/b                      ━━━━             ranking 8/32, ~0:01:01 left",
        ),
        (Progress("a/b", "keeps its own task"), "gw11 a/b                       keeps its own task"),
        (
            Progress("a/b", "searching a start", probes=3, refused=9, asked=96),
            "gw11 a/b                       searching a start: 3 probes, 9/96 refused",
        ),
        (
            Progress("x" * 90, "reduce", 9, 0, 0, 9, 0, None),
            f"gw11 {'x' * 8}…{'x' * 15} {'':16} 9 units, 0 probes, 0/9 refused, ~? left",
        ),
    ],
)
def test_a_line_says_what_a_worker_does_in_100_columns(progress: Progress, shown: str) -> None:
    lines = Table.grid(padding=(0, 1))
    lines.add_row(*row("gw11", asdict(progress)))
    console = Console(width=100, color_system=None, file=io.StringIO(), legacy_windows=False)
    with console.capture() as capture:
        console.print(lines)
    assert capture.get().rstrip() == shown
    assert len(shown) <= 100


def test_a_worker_writes_its_progress_and_not_too_often(tmp_path: Path) -> None:
    writer = ProgressWriter(tmp_path, "gw0")
    writer.pytest_sessionstart()
    publish(SEARCH)
    publish(Progress("a/b", "too soon"))
    assert json.loads((tmp_path / "gw0.json").read_text()) == asdict(SEARCH)
    writer.pytest_sessionfinish()
    assert list(tmp_path.iterdir()) == []
    publish(SEARCH)
    assert list(tmp_path.iterdir()) == []


# A search that takes a moment, so that there is something to see.
SLOW = """
import time
from safety_harness.progress import Progress, publish

def test_slow(student):
    for probe in range(4):
        time.sleep(0.4)
        publish(Progress(student.evaluator.student.id, "reduce", 9, 1 + probe, 3, 9, 4, 60.0))
"""


# What would say to pytest that nobody watches, or how wide the terminal is: a CI, and what pytester itself sets.
QUIET = ("CI", "PYTEST_ADDOPTS", "NO_COLOR", "PY_COLORS", "COLUMNS")


def in_a_terminal(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest in *folder*, and return its exit code and all that it wrote to a terminal of a hundred columns."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in QUIET}
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", *RUN, *arguments], cwd=folder, stdin=inside, stdout=inside, stderr=inside,
        env={**variables, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(inside)
    written = b""
    while True:
        try:
            written += (part := os.read(terminal, 65536))
        except OSError:  # as Linux says that the program closed its side
            break
        if not part:
            break
    os.close(terminal)
    return running.wait(), written.decode("utf-8")


@pytest.mark.parametrize("workers", [pytest.param((), marks=pytest.mark.slow), ("-n", "1")])
def test_a_terminal_sees_the_search_and_keeps_the_output(tmp_path: Path, workers: tuple[str, ...]) -> None:
    write_project(tmp_path, {"one": "pass"}, SLOW)
    code, written = in_a_terminal(tmp_path, *workers)
    assert code == 0
    name = "gw0 " if workers else "main"
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written)
    # Four of these are published, a few of them while the board is drawn; the last stays no longer than its test.
    assert re.search(rf"{name} alpha/one +[━╸╺]+ 9 units, [123] probes, 3/9 refused, ~0:01:00 left", plain)
    assert "…" not in plain  # each line has the terminal's width, also while pytest captures a test
    last = plain[-1500:].replace("\r", "")
    assert re.search(r"^gate: PASS$", last, flags=re.MULTILINE)
    assert re.search(r"^=+ 4 passed in .*=+$", last, flags=re.MULTILINE)
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") > 0  # the cursor is back


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[str]]:
    """Yield a terminal in which pytest draws colours."""
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    outside, inside = pty.openpty()
    with os.fdopen(inside, "w", encoding="utf-8") as stream:
        yield stream
    os.close(outside)


def draws(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, stdout: IO[str], *arguments: str) -> bool:
    """Return whether a gated run that writes to *stdout* would draw a board."""
    monkeypatch.setattr(sys, "stdout", stdout)
    config = pytester.parseconfigure("--gate-run", *RUN, *arguments)
    board, writer = (config.pluginmanager.has_plugin(f"safety-harness-{name}") for name in ("board", "progress"))
    assert board == writer
    return board


@pytest.mark.parametrize(
    ("arguments", "environment", "drawn"),
    [
        ((), {}, True), ((), {"CI": "true"}, False), ((), {"TERM": "dumb"}, False), (("-s",), {}, False),
        (("-q",), {}, False), (("-p", "no:terminal"), {}, False), (("--collect-only",), {}, False),
        (("--pdb",), {}, False),
    ],
)  # fmt: skip
def test_nothing_is_drawn_where_nobody_watches(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, terminal: IO[str], arguments: tuple[str, ...],
    environment: dict[str, str], drawn: bool,
) -> None:  # fmt: skip
    write_project(pytester.path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert draws(pytester, monkeypatch, terminal, *arguments) == drawn


def test_colours_in_a_file_draw_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, terminal: IO[str]
) -> None:
    write_project(pytester.path)
    with (pytester.path / "written.txt").open("w", encoding="utf-8") as file:
        assert not draws(pytester, monkeypatch, file, "--color=yes")
    assert draws(pytester, monkeypatch, terminal, "--color=yes")
