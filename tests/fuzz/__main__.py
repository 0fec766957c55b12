"""Read mutated files in one process, within limits of time and memory, and print what was not an error of the user's.

    python -m tests.fuzz READER FIRST COUNT [READER FIRST COUNT ...]

prints a line of JSON for each reader. An input is made of its reader and its number alone, so that it can be had again.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from safety_harness.ddmin import DdminError
from safety_harness.errors import HarnessError
from tests.fuzz.mutations import mutated
from tests.fuzz.readers import SUBJECTS

MOST_SECONDS = 5
MOST_MEMORY = 1 << 30


def run(name: str, numbers: range) -> dict[str, object]:
    """Read the mutated files of these *numbers*, and return how often what came of it."""
    subject = SUBJECTS[name]
    read, slowest, failures = 0, 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, subject.file)
        subject.beside(file.parent)
        for number in numbers:
            rng = random.Random(f"{name} {number}")
            file.write_bytes(mutated(rng.choice(subject.sound), rng))
            # A read that hangs is ended by the signal. The last line tells who reads the output which one it was.
            print(f"{name} {number}", file=sys.stderr, flush=True)
            signal.alarm(MOST_SECONDS)
            begun = time.perf_counter()
            try:
                subject.read(file)
                read += 1
            except (HarnessError, DdminError) as error:
                if "\n" in str(error) or len(str(error)) > 5_000:
                    failures.append((number, f"no line: {str(error)[:500]!r}"))
            except BaseException:
                failures.append((number, traceback.format_exc(limit=-3)[-1500:]))
            slowest = max(slowest, time.perf_counter() - begun)
            signal.alarm(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {
        "reader": name, "inputs": len(numbers), "read": read, "slowest_s": round(slowest, 3), "peak_mib": peak,
        "failures": failures,
    }  # fmt: skip


def main(arguments: list[str]) -> None:
    """Limit the memory of this process, and run each reader that the arguments name."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, first, count in zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True):
        print(json.dumps(run(name, range(int(first), int(first) + int(count)))), flush=True)


main(sys.argv[1:])
