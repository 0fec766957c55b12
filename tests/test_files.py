"""Check that files appear whole or not at all, also when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from safety_harness.errors import HarnessError, SourceError
from safety_harness.files import cache_dir, explain_disk_errors, sha256_file, sha256_text, whole_folder, write_whole

FULL = OSError(errno.ENOSPC, "No space left on device")


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Raise *error* in the moment before a file is complete, as a full disk or the user would."""

    def refuse(_handle: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", refuse)


def names(folder: Path) -> list[str]:
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


# --- Messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_the_place_and_a_way_out(number: int) -> None:
    with (
        pytest.raises(HarnessError, match=r"/some/place: no space is left .*\$SAFETY_HARNESS_CACHE.*--report-dir"),
        explain_disk_errors(Path("/some/place")),
    ):
        raise OSError(number, os.strerror(number))


def test_a_full_disk_is_told_when_safetensors_meets_it() -> None:
    """Explain errors of safetensors, which are no OSError and carry the number in their text."""
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
