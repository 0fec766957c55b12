"""Name what computes a model: answers of two kinds of processors are never mixed."""

from __future__ import annotations

from typing import Any

import torch

# How the instructions for a short format end, in the names that torch has for what a processor can do.
_SHORT_FORMATS = {torch.bfloat16: "bf16", torch.float16: "fp16"}


def device_name(model: Any) -> str:
    """Return what computes *model*: the names of its GPUs, each kind once, or ``cpu``.

    Each kind of GPU sums in an order of its own, so that in bfloat16 its answers differ from those of another kind. In
    bfloat16 and float16 a CPU is named with its instructions for the format, as in ``cpu (avx512_bf16)``. In float32
    all CPUs have one name: there an answer hardly ever differs, and a cache of patches serves many kinds of machines.
    """
    devices = {parameter.device for parameter in model.parameters()}
    return " + ".join(sorted({_name(device, model.dtype) for device in devices}))


def _name(device: torch.device, dtype: torch.dtype) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu" or dtype not in _SHORT_FORMATS:
        return device.type
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.10 cannot say
    units = sorted(name for name, has in able.items() if has is True and name.endswith(_SHORT_FORMATS[dtype]))
    return f"cpu ({', '.join(units)})" if units else "cpu"
