"""Stand in for `nvidia-smi`, which lists the GPUs of a machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

A100 = "NVIDIA A100-SXM4-40GB, {free}, Disabled"
T1000 = "NVIDIA T1000, {free}, [N/A]"
PROGRAM = """#!{python}
import sys
fields = next(word.partition("=")[2] for word in sys.argv if word.startswith("--query-gpu=")).split(",")
assert "--format=csv,noheader,nounits" in sys.argv
for row in {rows!r}:
    print(", ".join(row[field] for field in fields))
"""


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: Sequence[str],
    visible: str | None,
    free: Sequence[int] = (),
    *,
    backwards: bool = False,
) -> Path:
    """Put the program first on PATH, for a box with a GPU for each of *rows*, of which *visible* are the caller's.

    GPU n has *free* MiB, or else 40000 + n.
    """
    listed = []
    for at, row in enumerate(rows):
        name, memory, mig = row.format(free=free[at] if free else 40000 + at).split(", ")
        about = {"name": name, "memory.free": memory, "mig.mode.current": mig, "driver_version": "580.95.05"}
        listed.append({**about, "uuid": f"GPU-{at}-of-the-box", "pci.bus_id": f"00000000:{16 + at:02X}:00.0"})
    program = folder / "nvidia-smi"
    program.write_text(PROGRAM.format(python=sys.executable, rows=listed[::-1] if backwards else listed))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    return program
