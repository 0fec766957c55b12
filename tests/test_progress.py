"""Check what long work publishes: how much is done, and who is waited for."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety_harness.files import locked
from safety_harness.progress import Progress, alone, counted, counter, publish, subscribe, unsubscribe, words


@pytest.fixture
def heard() -> Iterator[list[Progress]]:
    """Return a list that fills with what is published."""
    moments: list[Progress] = []
    subscribe(moments.append)
    yield moments
    unsubscribe(moments.append)


def test_counted_work_says_how_far_it_is_and_how_long_it_takes(heard: list[Progress]) -> None:
    for _ in counted("ranking", "abc", 3):
        time.sleep(0.01)
    assert [(moment.phase, moment.done, moment.of) for moment in heard] == [("ranking", n, 3) for n in range(4)]
    assert heard[0].rest is None
    assert heard[1].rest is not None
    assert heard[1].rest >= 0.02
    assert heard[-1].rest == 0
    assert words(heard[1]) == "ranking 1/3"


def test_only_the_outermost_counter_speaks(heard: list[Progress]) -> None:
    for _ in counted("leaving out", "ab", 2):
        with counter("asking", 9) as advance:
            advance(9)
    with alone("searching"), counter("asking", 9) as advance:
        advance(9)
    assert {moment.phase for moment in heard} == {"leaving out"}
    publish(Progress("a/b", "measuring"))
    assert words(heard[-1]) == "measuring"


def test_a_counter_that_breaks_leaves_the_next_one_audible(heard: list[Progress]) -> None:
    with contextlib.suppress(ValueError), counter("asking", 9):
        raise ValueError
    with counter("reading", 2) as advance:
        advance(1)
    assert heard[-1].phase == "reading"


HOLD = """
import sys, time
from pathlib import Path
from safety_harness.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not list its locks")
def test_a_wait_for_another_run_names_its_process(heard: list[Progress], tmp_path: Path) -> None:
    """Let another process hold what this one needs, until this one has said that it waits."""
    wanted = tmp_path / "patch"
    command = [sys.executable, "-c", HOLD, str(wanted)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        let_go = holder.stdin.close

        def end(_: Progress) -> None:
            let_go()

        subscribe(end)
        with locked(wanted):
            unsubscribe(end)
    assert f"waiting for process {holder.pid} of " in heard[0].phase
