"""Check which GPUs a run may use, with a stand-in for the driver's own program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from safety_harness.evaluation import gpus
from safety_harness.evaluation.gpus import MIB, Gpu, driver_version, visible_gpus
from tests.fake_driver import A100, T1000, install

FOUR = [A100] * 4
MIXED = [T1000, A100, A100]


def seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rows: Sequence[str], visible: str | None, order: str | None = None
) -> list[tuple[str | None, int | None]]:
    """Return name and free MiB of each GPU that a run sees in a box of *rows*."""
    install(folder, monkeypatch, rows, visible)
    if order is not None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    return [(gpu.id, gpu.free and gpu.free // MIB) for gpu in visible_gpus()]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("2,0", [2, 0]),
        (" 3 , 1 ", [3, 1]),
        ("", []),
        ("-1", []),
        ("0,-1,2", [0]),  # CUDA reads no further than what it does not know
        ("1,9,2", [1]),
        ("1,1,2", [1]),
        ("GPU-2,GPU-0", [2, 0]),  # as much of a UUID as names one GPU
        ("GPU-", []),  # names four
        ("GPU-7", []),
        ("NoDevFiles", []),
        ("²", []),
    ],
)
def test_visible_gpus_are_those_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[int]
) -> None:
    """Name GPUs by number and by UUID. Each comes back with its whole UUID, in the caller's order."""
    found = seen(tmp_path, monkeypatch, FOUR, visible)
    assert found == [(f"GPU-{at}-of-the-box", 40000 + at) for at in expected]


@pytest.mark.parametrize(
    ("order", "visible", "expected"),
    [
        ("PCI_BUS_ID", "0,2", [("GPU-0-of-the-box", 40000), ("GPU-2-of-the-box", 40002)]),
        ("FASTEST_FIRST", "0,2", [("0", None), ("2", None)]),
        (None, "0,5", [("0", None)]),
        (None, "GPU-1", [("GPU-1-of-the-box", 40001)]),
        (None, None, [(f"GPU-{at}-of-the-box", 40000 + at) for at in range(3)]),
    ],
)
def test_a_number_is_a_uuid_only_where_that_is_sure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str | None, visible: str | None, expected: object
) -> None:
    """Put a small GPU on the first slot of the bus: CUDA's number 0 may be another one, so the number stays."""
    assert seen(tmp_path, monkeypatch, MIXED, visible, order) == expected


def test_gpus_come_in_the_order_of_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """List them backwards."""
    install(tmp_path, monkeypatch, FOUR, "0", backwards=True)
    assert [gpu.id for gpu in visible_gpus()] == ["GPU-0-of-the-box"]


def test_mig_instances_are_named_by_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name two instances; name the GPU that holds them; name nothing."""
    partitioned = [A100.replace("Disabled", "Enabled"), A100]
    assert seen(tmp_path, monkeypatch, partitioned, "MIG-a,MIG-b") == [("MIG-a", None), ("MIG-b", None)]
    assert seen(tmp_path, monkeypatch, partitioned, "0") == [("0", None)]
    assert seen(tmp_path, monkeypatch, partitioned, None) == [(None, None)]
    assert seen(tmp_path, monkeypatch, partitioned, "1") == [("GPU-1-of-the-box", 40001)]


def test_memory_that_the_driver_does_not_know_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share memory with the processor, as some GPUs do."""
    assert seen(tmp_path, monkeypatch, [A100.replace("{free}", "[N/A]")], None) == [("GPU-0-of-the-box", None)]


@pytest.mark.parametrize("answer", ["exit 6", "echo No devices were found", "sleep 9", "echo 'a, b'"])
def test_without_a_driver_there_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Let the driver's program fail, say nothing of use, and never end. Then remove it."""
    monkeypatch.setattr(gpus, "DRIVER_SECONDS", 0.5)
    driver = install(tmp_path, monkeypatch, FOUR, "0")
    driver.write_text(f"#!/bin/sh\n{answer}\n")
    assert visible_gpus() == ()
    driver.unlink()
    assert visible_gpus() == ()
    assert driver_version() is None


def test_the_drivers_version_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, FOUR, None)
    assert driver_version() == "580.95.05"
    assert visible_gpus()[0] == Gpu("GPU-0-of-the-box", "NVIDIA A100-SXM4-40GB", 40000 * MIB)
