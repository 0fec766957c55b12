"""Check that no mutated file ends a reader but with one line: no traceback, no hang, no full memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.fuzz.readers import SUBJECTS

# Numbers of inputs that once ended otherwise, by reader.
FOUND = {"results": [2066, 2800], "registry": [724, 971, 1179, 1268, 1336, 1917], "index": [1643, 1690, 9678]}


def fuzz(*runs: tuple[str, int, int]) -> list[dict[str, Any]]:
    """Run readers over mutated files in a process of their own. Return what each came to."""
    arguments = [str(part) for one in runs for part in one]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    last = (done.stderr.splitlines() or [""])[-1]
    assert done.returncode == 0, f"ended with {done.returncode} at {last}: {done.stderr[-2_000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_few_mutated_files_are_read_or_refused() -> None:
    found = [(name, number, 1) for name, numbers in FOUND.items() for number in numbers]
    results = fuzz(*((name, 0, 100) for name in SUBJECTS), *found)
    assert [(one["reader"], one["failures"]) for one in results if one["failures"]] == []
    # Neither is everything refused, nor is everything read.
    assert [one["reader"] for one in results[: len(SUBJECTS)] if not 0 < one["read"] < one["inputs"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_ten_thousand_mutated_files_are_read_or_refused(name: str) -> None:
    (result,) = fuzz((name, 0, 10_000))
    print(json.dumps(result))
    assert result["failures"] == []
