"""The live line of each worker: drawn for a terminal, and for nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import asdict
from pathlib import Path

import pytest

from safety_harness.plugin.live import Teller, line
from safety_harness.search.progress import Progress, publish
from tests.plugin.conftest import ROOT, Project

SEARCH = Progress("smollm2/arithmetic", "reduce", size=22, probes=41, refused=71, asked=96, to_go=123, rest=1845.0)


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (SEARCH, "gw11 smollm2/arithmetic       [####------------] 22 units, 41 probes, 71/96 refused, ~31 min left"),
        (Progress("a/b", "keeps its own task"), "gw11 a/b                      keeps its own task"),
        (
            Progress("a/b", "searching a start", probes=3, refused=9, asked=96),
            "gw11 a/b                      searching a start: 3 probes, 9/96 refused",
        ),
        (
            Progress("x" * 90, "reduce", 9, 0, 0, 9, 0, 0.0),
            f"gw11 {'x' * 8}…{'x' * 15} [----------------] 9 units, 0 probes, 0/9 ref",
        ),
    ],
)
def test_a_line_says_what_a_worker_is_at_and_fits_a_hundred_columns(moment: Progress, shown: str) -> None:
    found = line("gw11", asdict(moment))
    assert found.startswith(shown)
    assert len(found) <= 100


def test_a_worker_writes_down_what_it_is_told_of_itself_and_not_too_often(tmp_path: Path) -> None:
    teller = Teller(tmp_path, "gw0")
    teller.pytest_sessionstart()
    publish(SEARCH)
    publish(Progress("a/b", "too soon"))
    assert json.loads((tmp_path / "gw0.json").read_text()) == asdict(SEARCH)
    teller.pytest_sessionfinish()
    assert list(tmp_path.iterdir()) == []
    publish(SEARCH)
    assert list(tmp_path.iterdir()) == []


# A search that takes a moment, so that there is something to see.
SLOW = """
import time
from safety_harness.search.progress import Progress, publish

def test_slow(student):
    for probe in range(4):
        time.sleep(0.4)
        publish(Progress(student.evaluator.student.id, "reduce", 9, 1 + probe, 3, 9, 4, 60.0))
"""


# What would tell pytest that nobody watches, or how wide the terminal is: a CI, and what pytester itself sets.
QUIET = ("CI", "PYTEST_ADDOPTS", "NO_COLOR", "PY_COLORS", "COLUMNS")


def in_a_terminal(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code of pytest in *folder*, and all that it wrote to a terminal of a hundred columns."""
    terminal, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    command = [sys.executable, "-m", "pytest", "suites", "--registry", "registry.toml", "-p", "no:cacheprovider"]
    variables = {name: value for name, value in os.environ.items() if name not in QUIET}
    running = subprocess.Popen(
        [*command, *arguments], cwd=folder, stdin=other, stdout=other, stderr=other,
        env={**variables, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    os.close(other)
    written = b""
    while True:
        try:
            written += (part := os.read(terminal, 65536))
        except OSError:  # as Linux says that the other side was closed
            break
        if not part:
            break
    os.close(terminal)
    return running.wait(), written.decode("utf-8")


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_terminal_sees_the_search_and_keeps_the_runs_output(
    project: Project, pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    project("--collect-only", students={"one": "pass"}, more=SLOW)
    code, written = in_a_terminal(pytester.path, *workers)
    assert code == 0
    name = "gw0 " if workers else "main"
    # Four of these are published, a few of them while the board is drawn; the last stays no longer than its test.
    assert re.search(rf"{name} alpha/one +\[#+-+\] 9 units, [123] probes, 3/9 refused, ~60 s left", written)
    last = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written)[-1500:].replace("\r", "")
    assert re.search(r"^gate: PASS$", last, flags=re.MULTILINE)
    assert re.search(r"^=+ 4 passed in .*=+$", last, flags=re.MULTILINE)
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [((), {"CI": "true"}), ((), {"TERM": "dumb"}), (("-s",), {}), (("-q",), {}), (("-p", "no:terminal"), {})],
)
def test_nothing_is_drawn_where_nobody_watches(
    project: Project, pytester: pytest.Pytester, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    project("--collect-only", students={"one": "pass"}, more=SLOW)
    code, written = in_a_terminal(pytester.path, *arguments, **environment)
    assert code == 0
    assert "probes" not in written.partition("release gate")[0]
    assert "\x1b[?25l" not in written


def test_colours_in_a_file_draw_nothing(project: Project, pytester: pytest.Pytester) -> None:
    project("--collect-only", students={"one": "pass"}, more=SLOW)
    command = [sys.executable, "-m", "pytest", "suites", "--registry", "registry.toml", "--color=yes"]
    variables = {name: value for name, value in os.environ.items() if name not in QUIET}
    done = subprocess.run(
        command, cwd=pytester.path, env={**variables, "TERM": "xterm", "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "\x1b[?25l" not in done.stdout
