"""Check the command ``plan``: its table, its figures for a fleet, and its errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from safety_harness.cli.main import main
from safety_harness.evaluation import machine
from safety_harness.evaluation.devices import DEVICES
from safety_harness.evaluation.machine import Machine

ONE = ("plan", "--student", "tiny-llama/arithmetic")


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Return what the command prints as JSON."""
    assert main([*ONE, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_plan_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Check the table and its errors."""
    assert main(["plan", "--family", "tiny-llama", "--tflops", "0.5", "--bandwidth", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "student"
    assert len(lines) == 2 + 7 + 1
    assert lines[-1].startswith("For a device: 0.5 TFLOP/s and 10 GB/s (as given).")
    assert main(["plan", "--family", "smollm3"]) == 2
    assert "Did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bandwidth", "0"], "0 is no positive number"),
        (["--disk", "nan"], "nan is no positive number"),
        (["--gpus", "0"], "'0' is no whole number from 1 to 100000"),
        (["--nodes", "2.5"], "'2.5' is no whole number"),
        (["--students", "9" * 30], "is no whole number"),
        (["--device", "h20"], "Did you mean 'h200'"),
    ],
)
def test_a_wrong_size_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*ONE, *arguments])
    assert said in capsys.readouterr().err


def test_a_fleet_says_waves_time_and_what_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Compare the words with the figures, and the figures with each other."""
    fleet = facts(capsys, "--students", "200", "--gpus", "8", "--nodes", "8")["fleet"]
    assert (fleet["students"], fleet["waves"], fleet["used"], fleet["most_useful"]) == (200, 4, 64, 200)
    assert fleet["device_hours"] == pytest.approx(fleet["used"] * fleet["seconds"] / 3600)
    assert sum(fleet["parts"].values()) < fleet["seconds"] / 3
    assert main([*ONE, "--students", "200", "--gpus", "8", "--nodes", "8"]) == 0
    out = capsys.readouterr().out
    assert "200 student(s) on 8 node(s) of 8 device(s), 1 a search: 4 wave(s)," in out
    assert "It stops scaling at 200 device(s): each student has its own then." in out
    assert "held-out questions" in out


def test_probes_ahead_shorten_the_search_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Compare a student on one core with the student on four, which --ahead takes without --gpus."""
    alone, four = (facts(capsys, "--device", "core", "--ahead", count)["fleet"] for count in ("1", "4"))
    assert (alone["devices"], four["devices"], four["used"]) == (1, 4, 4)
    assert alone["seconds"] - four["seconds"] == pytest.approx(alone["parts"]["search"] * 2 / 3)


def test_the_device_decides(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan for a slow GPU, for other rates than its own, and for this machine."""
    slow, fast = (facts(capsys, "--device", name)[0]["seconds"][0] for name in ("l4", "b200"))
    assert slow > 5 * fast
    given = facts(capsys, "--device", "l4", "--tflops", "1e4", "--bandwidth", "1e5")[0]["seconds"][0]
    assert given < fast
    here = Machine(4, 0.0, 2**34, "", 0, bfloat16=False, flops=1e11, bandwidth=1e10)
    monkeypatch.setattr(machine, "measure", lambda: here)
    assert main([*ONE, "--device", "here"]) == 0
    assert "For this machine's 4 cores: 0.1 TFLOP/s and 10 GB/s (measured now)." in capsys.readouterr().out
    assert main([*ONE, "--device", "here", "--gpus", "4"]) == 0
    assert "For a core of this machine's 4: 0.025 TFLOP/s and 2.5 GB/s (measured now)." in capsys.readouterr().out
    assert all(known.device.flops > 0 and known.source for known in DEVICES.values())


def test_a_model_too_large_for_the_device_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measure a machine with little memory."""
    small = Machine(2, 0.0, 10**6, "", 0, bfloat16=False, flops=1e11, bandwidth=1e10)
    monkeypatch.setattr(machine, "measure", lambda: small)
    assert main([*ONE, "--device", "here", "--gpus", "2"]) == 0
    assert "needs 0.062 GiB; a core of this machine's 2: 0.00093 GiB. Give it several GPUs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--family", "tiny-llama", "--students", "9"], "One student is needed"),
        (["--student", "tiny-llama/arithmetic", "--gpus", "2", "--ahead", "4"], "a node has 2. Give more --gpus"),
    ],
)
def test_a_fleet_that_cannot_be_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["plan", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
