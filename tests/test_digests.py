"""Check that a large file is hashed once, and again as soon as anything about it changed."""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from safety_harness import digests
from safety_harness.digests import REHASH_VARIABLE, sha256_of_weights
from safety_harness.errors import SourceError
from safety_harness.files import sha256_file

SIZE = 1 << 12


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"a" * SIZE)
    return file


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trust small and young files, too, and note each file that is hashed."""
    names: list[str] = []

    def noting(path: Path) -> str:
        names.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(digests, "sha256_file", noting)
    monkeypatch.setattr(digests, "AT_LEAST", SIZE)
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 0)
    return names


def true(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_is_hashed_once(weights: Path, hashed: list[str]) -> None:
    """Ask three times, by its path and by a link to it, as the hub's cache has them."""
    link = weights.with_name("link")
    link.symlink_to(weights)
    assert [sha256_of_weights(path) for path in (weights, weights, link)] == [true(weights)] * 3
    assert hashed == ["model.safetensors"]


def edited(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.write(b"b")


def with_its_old_time(file: Path) -> None:
    before = file.stat()
    edited(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(file: Path) -> None:
    """Put another file of the same size and time in its place, as `rsync --times` does."""
    new = file.with_name("new")
    shutil.copy2(file, new)
    with_its_old_time(new)
    new.replace(file)


def mapped(file: Path) -> None:
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), SIZE) as memory:
        memory[0] = ord("b")


def grown(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"b")


@pytest.mark.parametrize("change", [edited, with_its_old_time, replaced, mapped, grown])
def test_a_changed_file_is_hashed_again(weights: Path, hashed: list[str], change: Callable[[Path], None]) -> None:
    before = sha256_of_weights(weights)
    time.sleep(0.02)  # two ticks of a kernel that counts hundredths
    change(weights)
    assert sha256_of_weights(weights) == true(weights) != before
    assert len(hashed) == 2


def test_a_file_that_changes_while_it_is_hashed_is_not_kept(
    weights: Path, hashed: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write into the file after it was read, and ask again."""
    noting = digests.sha256_file

    def slow(path: Path) -> str:
        found = noting(path)
        time.sleep(0.02)
        edited(path)
        return found

    monkeypatch.setattr(digests, "sha256_file", slow)
    sha256_of_weights(weights)
    assert [path.suffix for path in (cache / "sha256").iterdir()] == [".lock"]
    monkeypatch.setattr(digests, "sha256_file", noting)
    assert sha256_of_weights(weights) == true(weights)
    assert len(hashed) == 2


def test_a_link_that_turns_keeps_no_wrong_digest(
    weights: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let a link lead to another file while it is hashed, and back."""
    link, other = weights.with_name("link"), weights.with_name("other")
    link.symlink_to(weights)
    other.write_bytes(b"b" * SIZE)
    noting = digests.sha256_file

    def turned(path: Path) -> str:
        link.unlink()
        link.symlink_to(other)
        found = noting(path)
        link.unlink()
        link.symlink_to(weights)
        return found

    monkeypatch.setattr(digests, "sha256_file", turned)
    assert sha256_of_weights(link) == sha256_of_weights(weights) == true(weights)
    assert hashed == ["model.safetensors"]


@pytest.mark.parametrize("reason", ["young", "small", "seconds", "windows", "asked", "folder"])
def test_what_cannot_be_trusted_is_hashed_each_time(
    weights: Path, hashed: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Let a file be young or small, count whole seconds, run on Windows, ask for it, and spoil the cache folder."""
    if reason == "young":
        monkeypatch.setattr(digests, "SETTLED_SECONDS", 60)
    elif reason == "small":
        monkeypatch.setattr(digests, "AT_LEAST", SIZE + 1)
    elif reason == "seconds":
        real = os.fstat

        def coarse(number: int) -> os.stat_result:
            about = real(number)
            whole = list(about)
            names = {name: getattr(about, name) for name in dir(about) if name.startswith("st_")}
            return os.stat_result(whole, {**names, "st_ctime_ns": about.st_ctime_ns // 10**9 * 10**9})

        monkeypatch.setattr(digests.os, "fstat", coarse)
    elif reason == "windows":
        monkeypatch.setattr(digests.sys, "platform", "win32")
    elif reason == "asked":
        monkeypatch.setenv(REHASH_VARIABLE, "1")
    else:
        cache.write_text("a file where the folder should be")
    assert [sha256_of_weights(weights) for _ in range(2)] == [true(weights)] * 2
    assert len(hashed) == 2


@pytest.mark.parametrize("spoil", [b"", b"\xff", b"1 2 3 4 abc\n", b"0" * 64])
def test_a_damaged_record_is_made_again(weights: Path, hashed: list[str], cache: Path, spoil: bytes) -> None:
    sha256_of_weights(weights)
    (record,) = (path for path in (cache / "sha256").iterdir() if path.suffix != ".lock")
    record.write_bytes(spoil)
    assert sha256_of_weights(weights) == true(weights)
    assert sha256_of_weights(weights) == true(weights)
    assert len(hashed) == 2


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone.safetensors: cannot be read \(No such file or directory\)."):
        sha256_of_weights(tmp_path / "gone.safetensors")


def hash_slowly(file: Path, counted: Path) -> None:
    """Hash in a process of its own, as a worker does, and leave a line in *counted* if the file was read."""
    digests.AT_LEAST, digests.SETTLED_SECONDS = SIZE, 0

    def slow(path: Path) -> str:
        with counted.open("a") as lines:
            lines.write("read\n")
        time.sleep(0.5)
        return sha256_file(path)

    digests.sha256_file = slow
    assert sha256_of_weights(file) == true(file)


def test_processes_that_begin_together_hash_once(weights: Path, tmp_path: Path) -> None:
    """Start four workers whose students have one teacher."""
    counted = tmp_path / "counted"
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=hash_slowly, args=(weights, counted)) for _ in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0] * 4
    assert counted.read_text() == "read\n"
