"""Check that a run gives the same in one process, in two, and after a kill at a random moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import kills


def test_one_process_two_and_a_killed_run_give_the_same(tmp_path: Path) -> None:
    """Kill a run, a worker, a controller and a search: the next one ends as one that nothing disturbed.

    Runs with workers use two processes. All facts of results.json are compared, and all files; dates, durations and the
    course of a search excepted.
    """
    registry = kills.write_world(tmp_path / "world")
    of = {kind: kills.reference(kind, tmp_path / "reference", registry) for kind in ("run", "search")}
    faults = []
    for number, kind in enumerate(("run", "worker", "controller", "search", "run")):
        expected = of["search" if kind == "search" else "run"]
        faults += kills.killed(number, kind, expected, tmp_path, registry).faults
    assert faults == []


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing() -> None:
    assert kills.main(["--to", "100"]) == 0
