"""Write files and folders whole or not at all, hash them, and say where the cache is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from safetensors import SafetensorError

from safety_harness.errors import HarnessError, SourceError
from safety_harness.progress import Progress, publish
from safety_harness.reading import Reader

if sys.platform != "win32":
    import fcntl

_FORBIDDEN = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EFBIG)
)

# A staging folder, by its name, and what lies in it.
_PARTIAL = "-partial"
_STAGE = re.compile(rf"\..+\.\w{{8}}{_PARTIAL}", re.DOTALL)
_LOCK, _ASIDE = "lock", "aside"

CACHE_VARIABLE = "SAFETY_HARNESS_CACHE"


def cache_dir() -> Path:
    """Return the folder of downloads, prepared checkpoints and patches.

    ``$SAFETY_HARNESS_CACHE`` names it; without that variable it is the system's folder for caches.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    return user_cache_path("safety_harness", appauthor=False)


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    Reader(SourceError, missing="cannot be read (No such file or directory).").require(path)
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error}).") from error


def write_whole(path: Path, data: str | bytes) -> None:
    """Write *data* to *path* so that a reader sees the old file or the new one, never a part.

    Raises:
        HarnessError: no space is left, or the folder cannot be written; the old file stands.
    """
    with explain_disk_errors(path), staging(path) as stage:
        _write(stage / "new", data)
        (stage / "new").replace(path)


@contextlib.contextmanager
def whole_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary folder that becomes *path* when the block ends well, and vanishes when not.

    If the process is killed before the new folder is in place, the next writer or :func:`locked` puts the old one back.

    Raises:
        HarnessError: *path* exists and it may not *replace* that, or the disk is full or may not be written to.
    """
    if not replace:
        refuse_existing(path)
    with explain_disk_errors(path), staging(path) as stage:
        temporary, aside = stage / "new", stage / _ASIDE
        temporary.mkdir()
        temporary.chmod(0o755)
        yield temporary
        if not replace:
            refuse_existing(path)
        elif path.exists() or path.is_symlink():
            aside.mkdir()
            path.rename(aside / path.name)
        temporary.rename(path)


def append_line(path: Path, line: str) -> None:
    """Write *line* behind all others of a file that is for its owner alone, and make the file if it is not there.

    Raises:
        HarnessError: the disk is full or may not be written to.
    """
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")


def write_set(folder: Path, files: Mapping[str, str], instead_of: Collection[str] = ()) -> tuple[Path, ...]:
    """Write *files* (name -> text) into *folder* as one set, instead of an earlier set with the names *instead_of*.

    *folder* may hold other files. At any moment it holds files of one set only, and the last of *files* is there only
    if all of its set is. An error keeps the earlier set, whole.

    Raises:
        HarnessError: the folder cannot be written, or its disk is full.
    """
    names = list(files)
    with explain_disk_errors(folder / names[-1]), staging(folder / names[-1]) as stage:
        new, old = stage / "new", stage / "old"
        new.mkdir()
        old.mkdir()
        for name, text in files.items():
            with explain_disk_errors(folder / name):
                _write(new / name, text)
        with _alone_in(folder), contextlib.ExitStack() as undo:
            for name in dict.fromkeys([*reversed(names), *instead_of]):  # the last goes first
                if (folder / name).is_symlink() or (folder / name).is_file():
                    _move(folder / name, old / name, undo)
            for name in names:
                _move(new / name, folder / name, undo)
            undo.pop_all()
    return tuple(folder / name for name in names)


@contextlib.contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Yield a new hidden folder next to *path*, for what is not whole yet, and remove it at the end.

    A lock in it shows that its process lives. What dead processes left next to *path* is cleared away first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_debris(path.parent)
    with contextlib.ExitStack() as held:
        stage = _locked_stage(path, held)
        try:
            yield stage
        finally:
            _dissolve(stage)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to make *path*. One process has it at a time; others wait.

    Raises:
        HarnessError: the folder of *path* cannot be written.
    """
    with contextlib.ExitStack() as held:
        with explain_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{path}.lock")
            try:
                held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                publish(Progress("", f"waiting for {_holder(Path(lock.lock_file))}"))
                held.enter_context(lock.acquire())
            clear_debris(path.parent)
        yield


def _holder(lock: Path) -> str:
    """Return which process holds a *lock*, as far as the system says (Linux lists its locks by inode)."""
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration, psutil.Error):
        inode = f":{lock.stat().st_ino}"
        entries = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
        holder = next(psutil.Process(int(entry[4])) for entry in entries if entry[5].endswith(inode))
        since = datetime.fromtimestamp(holder.create_time()).strftime("%H:%M")
        return f"process {holder.pid} of {holder.username()}, begun at {since}"
    return "another process"


def clear_debris(folder: Path) -> None:
    """Remove what processes that were killed have left in *folder*, and put back what they had set aside."""
    for stage in folder.glob(f".*{_PARTIAL}"):
        # A process that lives holds the lock, and another user's files cannot be removed.
        with contextlib.suppress(OSError):
            if _STAGE.fullmatch(stage.name) and stage.is_dir() and not stage.is_symlink():
                with FileLock(stage / _LOCK, timeout=0):
                    _dissolve(stage)


def refuse_existing(path: Path) -> None:
    """Refuse to write over what a user names.

    Raises:
        HarnessError: *path* exists.
    """
    clear_debris(path.parent)
    if path.exists() or path.is_symlink():
        raise HarnessError(f"{path}: exists. Choose another place, or remove it.")


def nearest_folder(path: Path) -> Path:
    """Return *path*, or the nearest folder above it that exists."""
    place = path.absolute()
    return next((folder for folder in (place, *place.parents) if folder.exists()), place)


def try_to_write(path: Path) -> None:
    """Try whether *path* could be written, before much is done for it.

    Raises:
        HarnessError: it could not.
    """
    with explain_disk_errors(path), staging(path) as stage:
        _write(stage / "new", "")


@contextlib.contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn a system error about a disk into a message that names the place and the way out."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _errno(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise HarnessError(
                f"{path}: no space is left on its disk. Free some, or choose another disk with ${CACHE_VARIABLE} "
                "(cache), --gate-report-dir (reports) or --out. What was finished is kept."
            ) from error
        if number in _FORBIDDEN:
            if elsewhere := _elsewhere(error, path):
                raise HarnessError(f"{elsewhere}: cannot be used ({os.strerror(number)}).") from error
            raise HarnessError(
                f"{path}: cannot be written ({os.strerror(number)}). Choose a folder you may write to with "
                f"${CACHE_VARIABLE} (cache), --gate-report-dir (reports) or --out."
            ) from error
        raise


def _elsewhere(error: OSError | SafetensorError, path: Path) -> str | None:
    """Return the file that an error names, unless it lies next to or below *path*; a file that was read, say."""
    name = getattr(error, "filename", None)
    if name is None:
        return None
    file = os.fsdecode(name)
    return None if Path(file).absolute().is_relative_to(path.parent.absolute()) else file


def _errno(error: OSError | SafetensorError) -> int | None:
    """Return the system's error number; safetensors has it in its text only."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None


def _locked_stage(path: Path, held: contextlib.ExitStack) -> Path:
    while True:
        # The name is cut, because a name has at most 255 bytes.
        stage = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=_PARTIAL))
        # Before it is locked, another process may take it for a dead one's and remove it.
        with contextlib.suppress(Timeout):
            held.enter_context(FileLock(stage / _LOCK, timeout=0))
            if (stage / _LOCK).exists():
                return stage


def _dissolve(stage: Path) -> None:
    """Remove a staging folder, after what was set aside in it is put back where nothing took its place."""
    for aside in (stage / _ASIDE).glob("*"):
        if not (stage.parent / aside.name).exists():
            aside.rename(stage.parent / aside.name)
    shutil.rmtree(stage, ignore_errors=True)


def _write(path: Path, data: str | bytes) -> None:
    """Write a new file, and wait until it is on disk."""
    with path.open("xb") as stream:
        stream.write(data.encode() if isinstance(data, str) else data)
        stream.flush()
        os.fsync(stream.fileno())
    path.chmod(0o644)


def _move(path: Path, to: Path, undo: contextlib.ExitStack) -> None:
    path.rename(to)
    undo.callback(to.rename, path)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold *folder* against other processes that ask for it, without a file that stays; on Windows do nothing."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot lock a folder
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
