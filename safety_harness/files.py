"""Write files and folders whole or not at all, hash them, and say where the cache is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path
from safetensors import SafetensorError

from safety_harness.errors import HarnessError, SourceError
from safety_harness.reading import Reader

_FORBIDDEN = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EFBIG)
)

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
    raw = data.encode() if isinstance(data, str) else data
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(raw)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def whole_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary sibling folder that becomes *path* when the block ends well, and vanishes when not.

    Raises:
        HarnessError: *path* exists and it may not *replace* that, or the disk is full or may not be written to.
    """
    if not replace:
        refuse_existing(path)
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            temporary.chmod(0o755)
            yield temporary
            if replace and path.exists():
                shutil.rmtree(path)
            elif not replace:
                refuse_existing(path)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to make *path*. One process has it at a time; others wait.

    Raises:
        HarnessError: the folder of *path* cannot be written.
    """
    with contextlib.ExitStack() as held:
        with explain_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(f"{path}.lock"))
        yield


def refuse_existing(path: Path) -> None:
    """Refuse to write over what a user names.

    Raises:
        HarnessError: *path* exists.
    """
    if path.exists() or path.is_symlink():
        raise HarnessError(f"{path}: exists. Choose another place, or remove it.")


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
                "(cache), --report-dir (reports) or --out. What was finished is kept."
            ) from error
        if number in _FORBIDDEN:
            if elsewhere := _elsewhere(error, path):
                raise HarnessError(f"{elsewhere}: cannot be used ({os.strerror(number)}).") from error
            raise HarnessError(
                f"{path}: cannot be written ({os.strerror(number)}). Choose a folder you may write to with "
                f"${CACHE_VARIABLE} (cache), --report-dir (reports) or --out."
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
