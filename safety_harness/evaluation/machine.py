"""Say what this machine has: memory, cores that are idle, a GPU, and how fast it multiplies."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from safety_harness.evaluation.estimate import Device
from safety_harness.files import cache_dir, nearest_folder

# Widths of the matrices that are multiplied to measure: enough work to keep every core busy, in a tenth of a second.
CPU_WIDTH, GPU_WIDTH = 768, 4096
REPETITIONS = 5
# Numbers that are copied to measure memory: 64 MiB, more than a cache holds.
COPIED = 1 << 24
# bfloat16 has a unit of its own where it is this much faster than float32. Elsewhere it is several times slower.
FASTER = 1.2
# A model smaller than this is gated in minutes in float32, in which answers do not depend on their batch.
SMALL_PARAMETERS = 50_000_000


@dataclass(frozen=True)
class Machine:
    """What computes here. ``memory`` and ``gpu_memory`` are free bytes, and ``load`` is how many cores are busy.

    ``gpu`` names every GPU that this process sees. ``gpu_memory`` is that of the roomiest, ``gpus_memory`` of all.
    """

    cores: int
    load: float
    memory: int
    gpu: str
    gpu_memory: int
    bfloat16: bool
    flops: float
    bandwidth: float
    gpus_memory: int = 0

    @property
    def device(self) -> Device:
        """The rates by which a plan estimates time."""
        return Device(self.flops, self.bandwidth)

    def dtype(self, parameters: int) -> str:
        """Return the number format in which a model of so many *parameters* is best gated here."""
        return "bfloat16" if self.bfloat16 and parameters >= SMALL_PARAMETERS else "float32"

    def __str__(self) -> str:
        computes = (
            f"{self.gpu} with up to {self.gpu_memory / 2**30:.0f} GiB free"
            if self.gpu
            else f"{self.cores} cores, no GPU"
        )
        unit = "a unit for bfloat16" if self.bfloat16 else "no unit for bfloat16"
        return (
            f"{computes}, {self.memory / 2**30:.0f} GiB of memory free, {unit}; measured: "
            f"{self.flops / 1e12:.2g} TFLOP/s and {self.bandwidth / 1e9:.0f} GB/s"
        )


def measure() -> Machine:
    """Measure this machine, in about a second. torch computes as in a gated run."""
    import torch

    on_gpu = torch.cuda.is_available()
    gpu, free = _gpus() if on_gpu else ("", [0])
    device = "cuda" if on_gpu else "cpu"
    width = GPU_WIDTH if on_gpu else CPU_WIDTH
    seconds = {}
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            one = torch.ones(width, width, dtype=dtype, device=device)
            seconds[dtype] = _fastest(lambda one=one: one @ one, on_gpu)  # type: ignore[misc]
        numbers, copy = torch.ones(COPIED, device=device), torch.ones(COPIED, device=device)
        copying = _fastest(lambda: copy.copy_(numbers), on_gpu)
    bfloat16 = seconds[torch.bfloat16] * FASTER <= seconds[torch.float32]
    return Machine(
        cores=cores(),
        load=load(),
        memory=psutil.virtual_memory().available,
        gpu=gpu,
        gpu_memory=max(free),
        gpus_memory=sum(free),
        bfloat16=bfloat16,
        flops=2 * width**3 / (seconds[torch.bfloat16] if bfloat16 else seconds[torch.float32]),
        bandwidth=2 * 4 * COPIED / copying,
    )


def _gpus() -> tuple[str, list[int]]:
    """Return the names of all GPUs, and the free bytes of each."""
    import torch

    gpus = range(torch.cuda.device_count())
    kinds = Counter(map(torch.cuda.get_device_name, gpus))
    names = " + ".join(name if count == 1 else f"{count} x {name}" for name, count in kinds.items())
    return names, [torch.cuda.mem_get_info(gpu)[0] for gpu in gpus]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float:
    """Return how many processes were busy in the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def free_disk(folder: Path | None = None) -> int:
    """Return the free bytes of the disk that *folder* lies on, or will lie on; of the cache if None."""
    return shutil.disk_usage(nearest_folder(folder or cache_dir())).free


def _fastest(work: Callable[[], object], on_gpu: bool) -> float:
    """Return the seconds of the fastest of several repetitions: another process only makes one slower."""
    import torch

    times = []
    for _ in range(REPETITIONS + 1):  # the first one also allocates
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return max(min(times), 1e-9)
