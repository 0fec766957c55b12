"""Hash large files once a machine, however many students share them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from pathlib import Path

from safety_harness.errors import HarnessError
from safety_harness.files import cache_dir, locked, sha256_file, sha256_text, write_whole

REHASH_VARIABLE = "SAFETY_HARNESS_REHASH"
# A smaller file is hashed within milliseconds. It could also be hashed and changed within one tick of the clock that
# dates it.
AT_LEAST = 16 << 20
# Linux writes a mapped page back after up to 35 seconds. Until then, further changes of it move no date.
SETTLED_SECONDS = 60
_SHA256 = re.compile("[0-9a-f]{64}")


def sha256_of_weights(path: Path) -> str:
    """Return the sha256 of a file, from an earlier time if nothing changed the file since.

    The cache keeps it with the file's path, inode, size, and the times of its last change. The system moves the second
    of these times (ctime) at every change, and no call sets it back. A kept digest can be trusted as far as the kernel,
    the clock and the cache folder can. Whoever may write to that folder could put patches there, too.

    A file is hashed again where its times say less: within a minute after a change, on a file system that counts whole
    seconds, and on Windows. With ``$SAFETY_HARNESS_REHASH`` every file is. The digests in the manifest of a written
    patch are always computed from the files.

    Raises:
        SourceError: the file cannot be read.
    """
    file = path.resolve()  # a link may soon lead to another file
    facts = None if os.environ.get(REHASH_VARIABLE) else _facts(file)
    if facts is None:
        return sha256_file(path)
    kept = cache_dir() / "sha256" / sha256_text(str(file))[:24]
    if known := _known(kept, facts):
        return known
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(kept))  # the students of a run begin together
        except HarnessError:  # a cache that cannot be written keeps nothing
            return sha256_file(file)
        if known := _known(kept, facts):
            return known
        found = sha256_file(file)
        if _facts(file) == facts:
            with contextlib.suppress(HarnessError):
                write_whole(kept, f"{facts} {found}\n")
        return found


def _facts(path: Path) -> str | None:
    """Return what changes with every change of a file; None where a change could go unnoticed."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:  # NFS asks its server for the times when a file is opened
            about = os.fstat(stream.fileno())
    except OSError:
        return None
    age = time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns)
    in_whole_seconds = about.st_ctime_ns % 1_000_000_000 == 0
    if sys.platform == "win32" or in_whole_seconds or age < SETTLED_SECONDS * 1_000_000_000 or about.st_size < AT_LEAST:
        return None
    return f"{about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"


def _known(kept: Path, facts: str) -> str | None:
    """Return the digest that was *kept* with these *facts*, if there is one."""
    try:
        now, _, digest = kept.read_text(encoding="ascii").removesuffix("\n").rpartition(" ")
    except (OSError, ValueError):
        return None
    return digest if now == facts and _SHA256.fullmatch(digest) else None
