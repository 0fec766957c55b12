"""List the GPUs that this process may use, by the driver's own program: to import torch for it takes seconds."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Without its persistence daemon the driver wakes each GPU first, which takes seconds a GPU.
DRIVER_SECONDS = 60
_FIELDS = ("pci.bus_id", "uuid", "memory.free", "mig.mode.current", "name")
MIB = 2**20


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name in CUDA_VISIBLE_DEVICES (None: whatever that holds), and its free bytes (None: unknown)."""

    id: str | None
    name: str
    free: int | None
    partitioned: bool = False
    """Whether it is in MIG mode, in which CUDA shows its instances and never the GPU."""


def visible_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA shows to this process, in the caller's order; none where no driver answers.

    Each is named by its UUID. CUDA and nvidia-smi may number GPUs differently.
    """
    listed = _listed()
    chosen = os.environ.get(VISIBLE)
    visible = list(listed)
    if listed and chosen is not None:
        visible = []
        for name in map(str.strip, chosen.split(",")):
            gpu = _named(name, listed)
            if gpu is None or gpu in visible:  # CUDA reads no further
                break
            visible.append(gpu)
    if any(gpu.partitioned for gpu in visible):
        # Of all instances that nobody named, CUDA shows a process one.
        return (Gpu(chosen, "an instance of a GPU in MIG mode", None),)
    return tuple(visible)


def driver_version() -> str | None:
    """Return the version of the GPUs' driver; None where no driver answers."""
    rows = _ask("driver_version")
    return rows[0][0] if rows else None


def smallest_gib() -> float | None:
    """Return the memory of this machine's smallest GPU in GiB; None where the driver does not say."""
    try:
        return min(float(memory) for (memory,) in _ask("memory.total")) / 1024
    except ValueError:
        return None


def _named(name: str, listed: tuple[Gpu, ...]) -> Gpu | None:
    """Return the GPU that CUDA calls *name*: an instance, a number, or how its UUID begins; None if there is none."""
    if name.startswith("MIG-"):
        return Gpu(name, "a MIG instance", None)
    if name.isascii() and name.isdecimal():
        if int(name) >= len(listed):
            return None
        # CUDA puts the fastest GPU first, unless it is told otherwise. Only GPUs of one kind are then in bus order.
        in_bus_order = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({gpu.name for gpu in listed}) == 1
        return listed[int(name)] if in_bus_order else Gpu(name, f"GPU {name}", None)
    found = [gpu for gpu in listed if name and str(gpu.id).startswith(name)]
    return found[0] if len(found) == 1 else None


def _listed() -> tuple[Gpu, ...]:
    """Return every GPU of this machine in the order of the bus, which is that of nvidia-smi."""
    return tuple(
        Gpu(uuid, name, int(free) * MIB if free.isdecimal() and mig != "Enabled" else None, mig == "Enabled")
        for _, uuid, free, mig, name in sorted(_ask(*_FIELDS))
    )


def _ask(*fields: str) -> list[list[str]]:
    """Return a row of *fields* for each GPU; none where the driver's program is missing, or fails."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DRIVER_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",", len(fields) - 1)] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == len(fields)]
