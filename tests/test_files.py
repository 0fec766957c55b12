"""Check that files appear whole or not at all, also when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from safety_harness.errors import HarnessError, SourceError
from safety_harness.files import (
    cache_dir,
    explain_disk_errors,
    locked,
    sha256_file,
    sha256_text,
    whole_folder,
    write_set,
    write_whole,
)
from tests.deaths import deaths, died_in_write

FULL = OSError(errno.ENOSPC, "No space left on device")


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Raise *error* just before a file is complete."""

    def refuse(_handle: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", refuse)


def names(folder: Path) -> list[str]:
    """Return the sorted names in *folder*."""
    return sorted(path.name for path in folder.iterdir())


# --- One file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "bytes_"), [("naïve", "naïve".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")])
def test_text_and_bytes_are_written_as_they_are(tmp_path: Path, data: str | bytes, bytes_: bytes) -> None:
    write_whole(tmp_path / "new" / "folders" / "a", data)
    assert (tmp_path / "new" / "folders" / "a").read_bytes() == bytes_
    assert names(tmp_path / "new" / "folders") == ["a"]


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "a longer old text")
    write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_the_old_file_stands_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write_whole(tmp_path / "a", "old")
    fail_with(monkeypatch, error)
    with pytest.raises((HarnessError, KeyboardInterrupt)):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


# --- A folder --------------------------------------------------------------------------------------------------------


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "deep" / "out") as temporary:
        (temporary / "a").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == ["a"]


def test_a_folder_replaces_the_old_one_wholly(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with whole_folder(tmp_path / "out") as temporary:
            (temporary / name).touch()
    assert names(tmp_path / "out") == ["new"]


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt(), ValueError("mine")])
def test_the_old_folder_stands_when_the_block_fails(tmp_path: Path, error: BaseException) -> None:
    with whole_folder(tmp_path / "out") as temporary:
        (temporary / "old").touch()

    def spoil() -> None:
        with whole_folder(tmp_path / "out") as temporary:
            (temporary / "new").touch()
            raise error

    with pytest.raises((HarnessError, KeyboardInterrupt, ValueError)):
        spoil()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["old"]


# --- A set of files --------------------------------------------------------------------------------------------------

OLD = {"a": "old a", "b": "old b", "old only": "x", "verdict": "old verdict"}
NEW = {"a": "new a", "b": "new b", "verdict": "new verdict"}


def texts(folder: Path) -> dict[str, str]:
    """Return the text of each file in *folder*; what is hidden is no file of a set."""
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_set_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    """Expect what the new set lacks to be gone, and what belongs to no set to be left."""
    (tmp_path / "README.md").write_text("mine")
    write_set(tmp_path, OLD)
    assert write_set(tmp_path, NEW, list(OLD)) == tuple(tmp_path / name for name in NEW)
    assert texts(tmp_path) == {**NEW, "README.md": "mine"}
    assert len(names(tmp_path)) == 4


def test_a_full_disk_keeps_the_earlier_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path, OLD)
    fail_with(monkeypatch, FULL)
    with pytest.raises(HarnessError, match="/a: no space is left"):
        write_set(tmp_path, NEW, list(OLD))
    assert names(tmp_path) == sorted(OLD)
    assert texts(tmp_path) == OLD


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
@pytest.mark.parametrize("at", range(7))
def test_a_fault_among_the_moves_keeps_the_earlier_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int
) -> None:
    """Let each of the four withdrawals and three moves fail in turn."""
    write_set(tmp_path, OLD)
    rename, calls = Path.rename, []

    def fail(path: Path, to: Path) -> Path:
        calls.append(path)
        if len(calls) == at + 1:
            raise error
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises((HarnessError, KeyboardInterrupt)):
        write_set(tmp_path, NEW, list(OLD))
    assert names(tmp_path) == sorted(OLD)
    assert texts(tmp_path) == OLD


def test_a_folder_with_a_name_of_the_set_is_not_removed(tmp_path: Path) -> None:
    write_set(tmp_path, {"verdict": "old"})
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").touch()
    with pytest.raises(HarnessError, match=r"cannot be written \(Is a directory"):
        write_set(tmp_path, NEW)
    assert names(tmp_path) == ["a", "verdict"]
    assert names(tmp_path / "a") == ["mine"]
    assert (tmp_path / "verdict").read_text() == "old"


# --- Deaths ----------------------------------------------------------------------------------------------------------


def test_a_death_at_any_change_leaves_one_set_and_no_verdict_of_another(tmp_path: Path) -> None:
    """Expect old files or new ones, never both, a verdict only with its whole set, and whole files."""
    folder, seen = tmp_path / "reports", set()
    write_set(folder, OLD)
    for _ in deaths(lambda: write_set(folder, NEW, list(OLD))):
        there = texts(folder)
        whole = [one for one in (OLD, NEW) if there.items() <= one.items()]
        assert whole
        assert "verdict" not in there or there in whole
        seen.add(tuple(sorted(there)))
        write_set(folder, OLD, list(NEW))  # the next run
        assert names(folder) == sorted(OLD)
    assert len(seen) >= 7
    assert texts(folder) == NEW
    assert len(names(folder)) == 3


def test_a_death_at_any_change_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "old")
    for _ in deaths(lambda: write_whole(tmp_path / "a", "new")):
        assert (tmp_path / "a").read_text() in ("old", "new")
        write_whole(tmp_path / "a", "old")
        assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("size", [1, 2])
def test_a_death_in_the_midst_of_a_write_keeps_the_old(tmp_path: Path, size: int) -> None:
    def fill() -> None:
        with whole_folder(tmp_path / "out") as temporary:
            (temporary / "a").write_text("new")

    with whole_folder(tmp_path / "out") as temporary:
        (temporary / "a").write_text("old")
    for action in (fill, lambda: write_whole(tmp_path / "a", "new"), lambda: write_set(tmp_path, NEW)):
        assert died_in_write(action, size)
        assert [name for name in names(tmp_path) if not name.startswith(".")] == ["out"]
        assert texts(tmp_path / "out") == {"a": "old"}
    write_whole(tmp_path / "a", "new")
    assert names(tmp_path) == ["a", "out"]


def test_a_death_at_any_change_loses_no_old_folder(tmp_path: Path) -> None:
    """Expect the old folder or the new one, at once or as soon as anyone asks for the right to make it."""

    def replace(text: str) -> None:
        with whole_folder(tmp_path / "out") as temporary:
            (temporary / "a").write_text(text)
            (temporary / "b").write_text(text)

    replace("old")
    set_aside = 0
    for _ in deaths(lambda: replace("new")):
        set_aside += not (tmp_path / "out").exists()
        with locked(tmp_path / "out"):
            assert texts(tmp_path / "out") in [dict.fromkeys("ab", "old"), dict.fromkeys("ab", "new")]
        assert names(tmp_path) == ["out", "out.lock"]
        replace("old")
    assert set_aside == 1
    assert texts(tmp_path / "out") == dict.fromkeys("ab", "new")


def test_what_a_living_process_is_writing_is_left(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "slow") as temporary:
        (temporary / "a").touch()
        write_whole(tmp_path / "quick", "x")
        assert (temporary / "a").exists()
    assert names(tmp_path) == ["quick", "slow"]
    assert names(tmp_path / "slow") == ["a"]


def test_hidden_files_of_others_are_left(tmp_path: Path) -> None:
    for name in (".git", ".my-partial", ".out.tmpfiles", ".results.json.swp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out.12345678-partial").touch()
    before = names(tmp_path)
    write_whole(tmp_path / "a", "x")
    assert names(tmp_path) == sorted([*before, "a"])
    assert not list(tmp_path.glob("*/*"))


# --- Messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_the_place_and_a_way_out(number: int) -> None:
    with (
        pytest.raises(HarnessError, match=r"/some/place: no space is left .*\$SAFETY_HARNESS_CACHE.*--gate-report-dir"),
        explain_disk_errors(Path("/some/place")),
    ):
        raise OSError(number, os.strerror(number))


def test_a_full_disk_is_told_when_safetensors_meets_it() -> None:
    """Raise an error of safetensors, which is no OSError and carries the number in its text."""
    with pytest.raises(HarnessError, match="no space is left"), explain_disk_errors(Path("/p")):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR])
def test_a_forbidden_place_is_told_with_its_reason(number: int) -> None:
    with (
        pytest.raises(HarnessError, match=f"/p: cannot be written .{os.strerror(number)}"),
        explain_disk_errors(Path("/p")),
    ):
        raise OSError(number, os.strerror(number))


def test_a_file_that_was_read_meanwhile_is_the_one_that_is_named(tmp_path: Path) -> None:
    source = tmp_path / "models" / "secret.json"
    with (
        pytest.raises(HarnessError, match=r"secret\.json: cannot be used \(Permission denied\)"),
        whole_folder(tmp_path / "out" / "released"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", str(source))


def test_other_errors_are_not_dressed_up() -> None:
    with pytest.raises(OSError, match="Bad file"), explain_disk_errors(Path("/p")):
        raise OSError(errno.EBADF, "Bad file descriptor")


# --- Hashes and the cache --------------------------------------------------------------------------------------------


def test_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("naïve".encode())
    assert sha256_file(tmp_path / "a") == sha256_text("naïve") == hashlib.sha256("naïve".encode()).hexdigest()


def test_a_file_that_cannot_be_hashed_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone: cannot be read \(No such file"):
        sha256_file(tmp_path / "gone")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"SAFETY_HARNESS_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c"),
        ({"SAFETY_HARNESS_CACHE": "~/c"}, "/home/me/c"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/safety_harness"),
        ({}, "/home/me/.cache/safety_harness"),
    ],
)
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str) -> None:
    for name in ("SAFETY_HARNESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(folder)
