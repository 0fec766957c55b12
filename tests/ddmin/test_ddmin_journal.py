"""Check that a killed run is resumed: nothing is asked twice, the result is the same, no foreign file is touched."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.ddmin import (
    Answer,
    JournalError,
    Noise,
    Reducer,
    Unresolved,
    journal,
    minimize,
    partial_result,
)
from tests.ddmin.shared import comparable
from tests.deaths import deaths

Oracle = Callable[[tuple[int, ...]], bool]


@pytest.fixture(autouse=True, scope="module")
def unsynced() -> Iterator[None]:
    """Skip thousands of waits for the disk: these tests kill the process and spare the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.os, "fsync", lambda _: None)
        yield


class Counting:
    """An oracle over `range(n)`, a threshold with some unresolved questions, that counts and may break."""

    def __init__(self, n: int, seed: int, flips: float = 0.0, break_at: int | None = None) -> None:
        self.n, self.seed, self.flips, self.break_at = n, seed, flips, break_at
        rng = random.Random(seed)
        self.weights = [rng.gauss(1, 1.2) for _ in range(n)]
        self.share = rng.random()
        self.asked: Counter[tuple[int, ...]] = Counter()

    def __call__(self, subset: tuple[int, ...]) -> bool:
        if sum(self.asked.values()) == self.break_at:
            raise OSError("killed")
        self.asked[subset] += 1
        rng = random.Random(f"{self.seed}{subset}{self.asked[subset] if self.flips else ''}")
        if len(subset) == self.n:
            return True
        if not self.flips and rng.random() < 0.1:
            raise Unresolved
        truth = sum(self.weights[i] for i in subset) >= self.share * sum(self.weights)
        return truth != (rng.random() < self.flips)


@given(
    st.integers(1, 16),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 12), max_size=4),
    st.sampled_from(["none", "monotone", "explicit"]),
    st.booleans(),
    st.integers(1, 3),
)
def test_a_run_killed_repeatedly_asks_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory,
    n: int,
    seed: int,
    kills: list[int],
    certificate: Any,
    prior: bool,
    workers: int,
) -> None:
    """Resume until the end, and compare the result with that of a run that was never killed."""
    path = tmp_path_factory.mktemp("journal") / "answers"
    weights = [random.Random(f"{seed}{i}").random() for i in range(n)] if prior else None
    options: dict[str, Any] = {"certificate": certificate, "weights": weights}
    expected = minimize(range(n), Counting(n, seed), **options)
    asked: Counter[tuple[int, ...]] = Counter()
    for kill in [*kills, None]:
        oracle = Counting(n, seed, break_at=kill)
        try:
            got = minimize(range(n), oracle, journal=path, workers=workers, **options)
        except OSError:
            assert kill is not None
        asked += oracle.asked
    assert comparable(got) == comparable(expected)
    assert got.calls - got.replayed <= oracle.asked.total()
    if workers == 1:  # several may be cut off with an answer on its way
        assert max(asked.values()) == 1
        assert asked.total() == expected.calls


def test_cut_at_every_byte(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    n, seed = 9, 3
    expected = minimize(range(n), Counting(n, seed), journal=whole, fingerprint="v1", certificate="explicit")
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    assert len(lines) == 1 + expected.calls > 10
    for cut in range(len(content) + 1):
        path = tmp_path / "cut"
        path.write_bytes(content[:cut])
        kept = max(content[:cut].count(b"\n") - 1, 0)
        oracle = Counting(n, seed)
        got = minimize(range(n), oracle, journal=path, fingerprint="v1", certificate="explicit")
        assert comparable(got) == comparable(expected)
        assert (got.replayed, oracle.asked.total()) == (kept, expected.calls - kept)
        assert path.read_bytes() == content


def test_a_death_at_any_change_of_the_file_loses_no_answer(tmp_path: Path) -> None:
    """Die when the file is made, when its head is synced, and when each answer is: what was written is not asked."""
    n, seed, path, died = 9, 3, tmp_path / "answers", 0
    options: dict[str, Any] = {"journal": path, "certificate": "explicit"}
    expected = minimize(range(n), Counting(n, seed), certificate="explicit")
    for died in deaths(lambda: minimize(range(n), Counting(n, seed), **options)):
        oracle = Counting(n, seed)
        assert comparable(minimize(range(n), oracle, **options)) == comparable(expected)
        assert oracle.asked.total() == expected.calls - max(0, died - 2)
        path.unlink()
    assert died == expected.calls + 2


@given(st.integers(2, 12), st.integers(0, 2**32), st.integers(1, 40))
def test_repeats_of_an_oracle_that_errs_are_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, kill: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "answers"
    noise = Noise(0.1)
    expected = minimize(range(n), Counting(n, seed, flips=0.1), noise=noise)
    oracle = Counting(n, seed, flips=0.1, break_at=kill)
    try:
        minimize(range(n), oracle, noise=noise, journal=path)
    except OSError:
        oracle.break_at = None
    got = minimize(range(n), oracle, noise=noise, journal=path)
    assert comparable(got) == comparable(expected)
    assert oracle.asked.total() == expected.calls


@pytest.mark.parametrize(
    ("content", "units", "fingerprint"),
    [
        (None, range(9), "v2"),
        (None, range(10), "v1"),
        (None, [*range(8), 99], "v1"),
        (b"my thesis", range(9), "v1"),
        (b"my thesis\n", range(9), "v1"),
    ],
)
def test_a_foreign_file_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes | None, units: Any, fingerprint: str
) -> None:
    path = tmp_path / "answers"
    if content is None:
        minimize(range(9), Counting(9, 3), journal=path, fingerprint="v1")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="not a journal of this oracle over these units"):
        minimize(units, lambda _: True, journal=path, fingerprint=fingerprint)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b'{"set": "zz", "answer": true}\n',
        b'{"set": "1", "answer": 7}\n',
        b"\xff\n",
        b'{"set": "1", "answer": 1}\n',
        b'{"set": "-1", "answer": true}\n',
        b'{"set": "0x1", "answer": true}\n',
        b'{"set": "200", "answer": true}\n',  # unit 9 of 9
        b'{"set": 1, "answer": true}\n',
        b'{"set": "1", "answer": []}\n',
        b'{"set": "1", "answer": NaN}\n',
        b'{"set": "' + b"f" * 99_999 + b'", "answer": true}\n',
        b'{"set": "1", "answer": ' + b"9" * 9_999 + b"}\n",
        b"[" * 99_999 + b"\n",
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "answers"
    minimize(range(9), Counting(9, 3), journal=path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], line + b"\n", *lines[3:]]))
    with pytest.raises(JournalError, match="line 4 of the journal"):
        minimize(range(9), Counting(9, 3), journal=path)


def test_a_journal_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be opened"):
        minimize(range(9), Counting(9, 3), journal=tmp_path)
    with pytest.raises(JournalError, match="cannot be opened"):
        minimize(range(9), Counting(9, 3), journal=tmp_path / "no" / "such")
    with pytest.raises(JournalError, match="cannot be opened"):
        minimize(range(9), Counting(9, 3), journal=tmp_path / "nu\0ll")
    os.mkfifo(tmp_path / "pipe")
    for endless in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(JournalError, match="cannot be opened: it is no file"):
            minimize(range(9), Counting(9, 3), journal=endless)


def test_a_journal_of_terabytes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "answers").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(JournalError, match="has more than 256 MiB"):
        minimize(range(9), Counting(9, 3), journal=tmp_path / "answers")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_journal_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    path.touch(mode=0o400)
    with pytest.raises(JournalError, match="cannot be opened: Permission denied"):
        minimize(range(9), Counting(9, 3), journal=path)


KILLED = """
import os, signal, sys
from safety_harness.ddmin import minimize

def oracle(subset):
    print(*subset, flush=True)
    if len(sys.argv) > 2 and next(budget) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return {3, 20} <= set(subset)

budget = iter(range(int(sys.argv[2]), -1, -1)) if len(sys.argv) > 2 else None
print("kept", *minimize(range(30), oracle, journal=sys.argv[1]).kept)
"""


def test_a_killed_process_goes_on_with_the_open_question(tmp_path: Path) -> None:
    """Kill a process while its oracle works, and compare the questions of the next with those of a whole run."""

    def run(*arguments: str) -> tuple[int, list[str]]:
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    code, whole = run(str(tmp_path / "whole"))
    assert (code, whole[-1]) == (0, "kept 3 20")
    code, begun = run(str(tmp_path / "answers"), "8")
    assert code == -signal.SIGKILL
    code, rest = run(str(tmp_path / "answers"))
    assert code == 0
    assert begun == whole[:9]
    assert rest == whole[8:]


def test_two_runs_cannot_share_a_journal(tmp_path: Path) -> None:
    first = Reducer(range(9), journal=tmp_path / "answers")
    with pytest.raises(JournalError, match="in use by another run"):
        Reducer(range(9), journal=tmp_path / "answers")
    first.close()
    Reducer(range(9), journal=tmp_path / "answers").close()


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_an_answer_that_only_half_fits_leaves_the_journal_whole(tmp_path: Path) -> None:
    """Fill the disk for a moment, by a limit on the size of files: one answer is lost, and no other."""
    import resource

    def needs(units: tuple[int, ...]) -> bool:
        asked.append(units)
        return {2, 5} <= set(units)

    asked: list[tuple[int, ...]] = []
    path = tmp_path / "answers"
    reducer = Reducer(range(9), journal=path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for turn in range(4):
        ask = reducer.ask()
        assert ask is not None
        answer = Answer.TRUE if needs(ask.units) else Answer.FALSE
        if turn != 2:
            reducer.tell(ask, answer)
            continue
        whole = path.read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 5, limits[1]))
        try:
            with pytest.raises(JournalError, match=r"only 5 of \d+ bytes could be written"):
                reducer.tell(ask, answer)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == whole
    reducer.close()
    before = set(asked)
    asked.clear()
    assert minimize(range(9), needs, journal=path).kept == (2, 5)
    assert len(before & set(asked)) == 1


def test_a_full_disk_is_a_clear_error_that_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = 0

    def full_after_five(_: int) -> None:
        nonlocal synced
        synced += 1
        if synced > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal.os, "fsync", full_after_five)
    oracle = Counting(9, 3)
    with pytest.raises(JournalError, match="No space left on device") as caught:
        minimize(range(9), oracle, journal=tmp_path / "answers")
    best = partial_result(caught.value)
    assert best is not None
    assert best.calls >= oracle.asked.total() == 5
    monkeypatch.undo()
    rest = Counting(9, 3)
    got = minimize(range(9), rest, journal=tmp_path / "answers")
    assert comparable(got) == comparable(minimize(range(9), Counting(9, 3)))
    assert not set(rest.asked) & set(oracle.asked)
