"""How this process takes memory from the system: seldom, in large pages, and without giving it back.

A forward pass makes and drops tensors of many megabytes. By default, glibc gives each back to the system at once, and
the next one faults in page by page. For 64 rows of 91 tokens through SmolLM2-135M in bfloat16 on one core, that is
380,000 page faults and 3.1 s. With the two settings below it is 900 page faults and 2.3 s (docs/speed.md).
"""

from __future__ import annotations

import ctypes
import os

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The largest byte counts that mallopt accepts for these: glibc trims nothing, and maps nothing separately.
_MAX_TRIM_BYTES, _MAX_MMAP_BYTES = 2**31 - 1, 2**30


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, and torch ask for large pages. This has no effect on systems without glibc.

    The process stays as large as it ever was.
    """
    # torch reads this when it first allocates. A user's own setting stands.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _MAX_MMAP_BYTES)
        mallopt(_TRIM_THRESHOLD, _MAX_TRIM_BYTES)
