"""Check the name of what computes: two kinds of processors never share a patch or an answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from safety_harness.models.devices import device_name

KINDS = ("NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB")


def model(dtype: torch.dtype, *devices: str) -> Any:
    """Return a model with one parameter on each of *devices*."""
    parameters = [SimpleNamespace(device=torch.device(device)) for device in devices]
    return SimpleNamespace(parameters=lambda: parameters, dtype=dtype)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (("cuda:0",), KINDS[0]),
        (("cuda:1", "cuda:1"), KINDS[1]),
        (("cuda:0", "cuda:2"), KINDS[0]),  # a layer gives the same numbers on each of one kind
        (("cuda:2", "cuda:1", "cuda:0"), f"{KINDS[0]} + {KINDS[1]}"),
        (("cuda:1", "cpu"), f"{KINDS[1]} + cpu"),
    ],
)
def test_gpus_are_named_by_kind(monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...], expected: str) -> None:
    """Put a model on some of three GPUs of two kinds."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: KINDS[device.index])
    assert device_name(model(torch.float32, *devices)) == expected


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float32, "cpu"),
        (torch.bfloat16, "cpu (amx_bf16, avx512_bf16)"),
        (torch.float16, "cpu (amx_fp16)"),
    ],
)
def test_a_cpu_is_named_by_its_units(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, expected: str) -> None:
    """Compute in a short format on a processor with units for it, and in float32."""
    able = {"avx512_bf16": True, "amx_bf16": True, "amx_fp16": True, "avx512_fp16": False, "l1d_cache_size": 1}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert device_name(model(dtype, "cpu")) == expected


def test_a_cpu_without_units_is_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in bfloat16 without a unit for it, and under a torch that does not know."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert device_name(model(torch.bfloat16, "cpu")) == "cpu"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert device_name(model(torch.bfloat16, "cpu")) == "cpu"
