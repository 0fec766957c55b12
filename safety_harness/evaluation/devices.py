"""Know the rates of common GPUs and of a core, for plans of machines that are not at hand."""

from __future__ import annotations

from dataclasses import dataclass

from safety_harness.evaluation.estimate import Device

# What a large product and a copy reached of the data sheet on an H200: 769 of 989 TFLOP/s, and 4.21 of 4.8 TB/s
# (benchmarks/speed/large_model.md).
OF_PRODUCTS, OF_COPIES = 0.78, 0.88


@dataclass(frozen=True)
class Known:
    """A device by its ``name``: TFLOP/s of bfloat16 without sparsity, GB/s and GB of memory.

    ``memory`` is 0 where that of the machine counts. ``source`` says where the numbers are from.
    """

    name: str
    tflops: float
    bandwidth: float
    memory: float
    source: str

    @property
    def device(self) -> Device:
        """The rates that a large product and a copy reach."""
        return Device(OF_PRODUCTS * self.tflops * 1e12, OF_COPIES * self.bandwidth * 1e9)


_SHEET = "NVIDIA's data sheet"
DEVICES = {
    "b200": Known("B200", 2250, 8000, 180, _SHEET),
    "h200": Known("H200", 989, 4800, 141, _SHEET),
    "h100": Known("H100 SXM", 989, 3350, 80, _SHEET),
    "a100": Known("A100 80 GB", 312, 2039, 80, _SHEET),
    "l40s": Known("L40S", 362, 864, 48, _SHEET),
    "l4": Known("L4", 121, 300, 24, _SHEET),
    # As if of a data sheet: a product reached 1.238 TFLOP/s (probe_speed.md), and a pass over 64 rows of 135 million
    # parameters took 102 ms (probe_growth.md).
    "core": Known("a core with a unit for bfloat16", 1.59, 9.4, 0, "benchmarks/speed"),
}
"""Devices by the name that ``plan --device`` takes."""
