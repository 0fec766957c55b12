"""Check gated runs whose searches have several processes: the same results, and no process that outlives its run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests import kills


class Ahead(kills.Trial):
    """Runs whose searches have two processes each."""

    @property
    def command(self) -> Sequence[str]:
        """The command of a gated run, with the option."""
        return [*super().command, "--gate-ahead", "2"]


def test_a_run_with_probes_ahead_gives_the_same(tmp_path: Path) -> None:
    """Compare all facts of results.json with a plain run; then kill the process of a search, and go on."""
    registry = kills.write_world(tmp_path / "world")
    of = kills.reference("run", tmp_path, registry)
    trial = Ahead("controller", tmp_path / "ahead", registry)  # two workers
    assert trial.finish() == of.code, (trial.folder / "log").read_text()
    assert trial.facts() == of.facts
    assert trial.names() == of.names

    killed = Ahead("run", tmp_path / "killed", registry)
    running = killed.start()
    until = time.monotonic() + kills.PATIENCE_S
    while not any("spawn_main" in " ".join(_words(one)) for one in psutil.Process(running.pid).children()):
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    running.kill()
    running.wait()
    killed.group = running.pid
    until = time.monotonic() + kills.ORPHANS_S
    while left := killed.orphans():
        assert time.monotonic() < until, [_words(one) for one in left]
        time.sleep(0.2)
    assert killed.finish() == of.code
    assert killed.facts() == of.facts
    assert killed.names() == of.names


def _words(process: psutil.Process) -> list[str]:
    """Return the command line of a process; nothing where it has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
