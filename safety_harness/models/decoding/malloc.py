"""How this process asks the system for memory, seldom and in large pages, and how much it keeps for later.

A forward pass makes and drops tensors of many megabytes. By default glibc gives each back to the system at once, and
the next one faults in page by page: 380,000 faults and 3.1 s for 64 rows of 91 tokens through SmolLM2-135M in bfloat16
on one core, against 900 faults and 2.3 s with the two settings below (benchmarks/speed/memory.py).
"""

from __future__ import annotations

import ctypes
import os

# glibc's malloc.h: mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The largest numbers that mallopt takes to heart.
_KEPT_ON_TOP, _KEPT_TO_ITSELF = 2**31 - 1, 2**30


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, and torch ask for large pages; without effect on another system.

    The process stays as large as it was at its largest.
    """
    # Read by torch when it first allocates; a user's own setting stands.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT_TO_ITSELF)
        mallopt(_TRIM_THRESHOLD, _KEPT_ON_TOP)
