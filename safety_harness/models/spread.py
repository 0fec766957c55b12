"""Spread a model that does not fit one GPU over the GPUs of this machine, whole layers on each."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from safety_harness.errors import SourceError, missing_extra

DeviceMap = str | Mapping[str, str | int]
"""How transformers places a model: ``auto``, or the device of each module by its name."""


def require_accelerate(folder: Path) -> None:
    """Check that the package is installed with which transformers spreads a model.

    Raises:
        HarnessError: it is not.
    """
    try:
        importlib.import_module("accelerate")
    except ModuleNotFoundError as error:
        raise missing_extra("accelerate", "spread", f"{folder}: spreading it over several GPUs") from error


def check_in_place(model: Any, folder: Path) -> None:
    """Check that every weight of *model* is in the memory of what computes with it.

    accelerate puts what is too much for the GPUs elsewhere, and fetches it for each pass. No unit can move there.

    Raises:
        SourceError: some are not.
    """
    outside = [name for name, parameter in model.named_parameters() if parameter.device.type == "meta"]
    if outside:
        raise SourceError(
            f"{folder}: does not fit into the GPUs that this process sees, and {len(outside)} of its tensors "
            f"({outside[0]!r} first) would stay outside, where nothing can be put into them. Show it more GPUs, use "
            "fewer workers (-n), or choose a shorter `dtype`."
        )


def spans_devices(model: Any) -> bool:
    """Return whether the layers of *model* lie on more than one device."""
    return len({parameter.device for parameter in model.parameters()}) > 1


def layout(model: Any) -> list[tuple[str, int]]:
    """Return the kinds of GPU that a spread model goes through, with the number of tensors on each; else nothing.

    On two GPUs of one kind a layer gives the same numbers. On a mixed machine it matters which layers lie where.
    """
    if not spans_devices(model):
        return []
    kinds = (_kind(parameter.device) for parameter in model.parameters())
    return [(kind, len(list(tensors))) for kind, tensors in itertools.groupby(kinds)]


def _kind(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
