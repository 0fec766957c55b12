"""Check what fleets are estimated to take: against figures worked out by hand, and against what was recorded."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.errors import ConfigError
from safety_harness.evaluation.devices import DEVICES, OF_COPIES, OF_PRODUCTS
from safety_harness.evaluation.estimate import (
    PASSES_SHARE,
    PROBES_BY_OUTCOME,
    READING_SHARE,
    asking_seconds,
    plan,
    seconds_by_outcome,
)
from safety_harness.evaluation.fleet import (
    HASHING,
    KEPT_PER_GROUP,
    PROBES_PER_GROUP,
    SPEED_AHEAD,
    WORTH,
    Fleet,
    Work,
    most_useful,
    outlay,
    seconds,
    work,
)
from safety_harness.registry.load import load_registry

ROOT = Path(__file__).parents[2]
# A minute on a device, of which half is the search; a gigabyte of its own, and three that it shares with all others.
ONE = Work("one", 10**9, {"teacher": 3 * 10**9}, 10**9, {"prior": 30.0, "search": 30.0})
DISK = 1e9
TEACHER = 3 + 3e9 / HASHING


@pytest.fixture(scope="module")
def docs_fleet() -> ModuleType:
    """Return docs/fleet.py, which knows shapes of models, as a module."""
    spec = importlib.util.spec_from_file_location("fleet", ROOT / "docs" / "fleet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("students", "fleet", "used", "waves", "taken", "read"),
    [
        (1, Fleet(1, 1), 1, 1, TEACHER + 1 + 60, 4),
        (3, Fleet(1, 1), 1, 3, TEACHER + 3 * 61, 6),
        # Two read from one disk at a time.
        (3, Fleet(2, 1), 2, 2, TEACHER + 2 * 62, 6),
        # Each node reads the teacher, and has a disk for its student.
        (2, Fleet(2, 2), 2, 1, TEACHER + 61, 8),
        (2, Fleet(4, 9), 2, 1, TEACHER + 61, 8),
        # Half of a minute takes a third of its time on four devices.
        (1, Fleet(4, 1, ahead=4), 4, 1, TEACHER + 1 + 30 + 30 / SPEED_AHEAD[4], 4),
        (2, Fleet(7, 1, ahead=4), 4, 2, TEACHER + 2 * (1 + 30 + 30 / SPEED_AHEAD[4]), 5),
    ],
)
def test_a_fleet_takes_what_a_sum_by_hand_gives(
    students: int, fleet: Fleet, used: int, waves: int, taken: float, read: int
) -> None:
    """Check waves, time, device-hours and bytes of small fleets."""
    out = outlay([ONE] * students, replace(fleet, disk=DISK))
    assert (out.used, out.waves, out.read) == (used, waves, read * 10**9)
    assert out.seconds == pytest.approx(taken)
    assert out.device_hours == pytest.approx(used * taken / 3600)


def test_a_node_with_fewer_gpus_than_a_search_is_refused() -> None:
    with pytest.raises(ConfigError, match="--ahead 4 takes 4 devices of one node, and a node has 2"):
        outlay([ONE], Fleet(2, 8, ahead=4))


@pytest.mark.parametrize(
    ("students", "fleet", "useful"),
    [
        (1, Fleet(8, 8), 1),
        (17, Fleet(8, 8), 17),
        (17, Fleet(1, 1), 17),
        (5, Fleet(8, 1), 5),
        (3, Fleet(8, 1, ahead=2), 6),
    ],
)
def test_equal_students_need_one_place_each(students: int, fleet: Fleet, useful: int) -> None:
    """Count on, whatever the fleet at hand is."""
    assert most_useful([ONE] * students, replace(fleet, disk=1e15)) == useful


def test_one_long_student_makes_further_devices_useless() -> None:
    """Give one student as much to do as all the others."""
    long = replace(ONE, student="long", parts={"prior": 240.0, "search": 0.0})
    assert most_useful([long, *[ONE] * 4], Fleet(8, 1, disk=1e15)) == 2


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5), st.integers(1, 9))
def test_what_holds_for_every_fleet(students: int, devices: int, nodes: int, ahead: int) -> None:
    """Check bounds: no student is faster than alone, no device is held twice, and beyond the useful nothing is won."""
    fleet = Fleet(devices, nodes, min(ahead, devices))
    works = [replace(ONE, student=str(number)) for number in range(students)]
    out = outlay(works, fleet)
    assert out.seconds >= seconds(ONE, fleet.ahead)
    assert out.waves * out.used // fleet.ahead >= students
    assert out.used <= min(devices * nodes, students * fleet.ahead)
    assert 4 * 10**9 <= out.read <= students * 10**9 + min(students, nodes) * 3 * 10**9
    useful = most_useful(works, fleet)
    assert useful <= students * fleet.ahead
    widest = outlay(works, replace(fleet, nodes=students))
    if fleet.places >= 1 and useful > fleet.places * fleet.ahead:
        enough = outlay(works, replace(fleet, nodes=-(-useful // (fleet.places * fleet.ahead))))
        assert enough.seconds <= (1 + WORTH) * outlay(works, replace(fleet, nodes=-(-students // fleet.places))).seconds
    assert widest.waves == 1


# --- Against what was recorded --------------------------------------------------------------------


def test_the_mix_of_probes_is_that_of_the_recorded_searches() -> None:
    """Count the probes of reports/smollm2.json again."""
    students = json.loads((ROOT / "reports" / "smollm2.json").read_text(encoding="utf-8"))["students"]
    patches = [student["about"]["patch"] for student in students]
    steps = [step for patch in patches for step in patch["course"]]
    assert (len(patches), len(steps)) == (17, 894)
    lost = sum(step["over_refused"] is None for step in steps)
    accepted = sum(step["accepted"] for step in steps)
    shares = (lost, len(steps) - lost - accepted, accepted)
    assert tuple(round(count / len(steps), 2) for count in shares) == PROBES_BY_OUTCOME
    groups = sum(patch["candidates"] for patch in patches)
    assert sum(patch["probes"] for patch in patches) / groups == pytest.approx(PROBES_PER_GROUP, abs=0.01)
    assert sum(len(patch["units"]) for patch in patches) / groups == pytest.approx(KEPT_PER_GROUP, abs=0.01)


def test_the_gain_ahead_is_that_of_the_simulated_clock() -> None:
    """Read the last row of the benchmark's page."""
    *_, last = (ROOT / "benchmarks" / "ddmin" / "ahead.md").read_text(encoding="utf-8").splitlines()
    gains = [float(gain) for gain in re.findall(r"\| ([0-9.]+) \(", last)]
    assert dict(zip((2, 4, 8), gains, strict=True)) | {1: 1.0} == SPEED_AHEAD


def test_a_measured_gpu_takes_what_was_measured(docs_fleet: ModuleType) -> None:
    """Compare a pass and the reading of questions with benchmarks/speed/large_model.md, to a tenth."""
    text = (ROOT / "benchmarks" / "speed" / "large_model.md").read_text(encoding="utf-8")
    recorded = re.search(r"recorded  \| 64 +\| ([0-9.]+)", text)
    read = re.search(r": (\d+) TFLOP/s, (\d+)% of the (\d+) of", text)
    copied = re.search(r"moves ([0-9.]+) TB/s", text)
    assert recorded
    assert read
    assert copied
    device = DEVICES["h200"].device
    assert device.flops == pytest.approx(float(read[3]) * 1e12, rel=0.1)
    assert device.bandwidth == pytest.approx(float(copied[1]) * 1e12, rel=0.1)
    assert pytest.approx(float(read[2]) / 100) == READING_SHARE
    model = docs_fleet.sketch(docs_fleet.LLAMA_7B)
    assert model.parameters == pytest.approx(6.74e9, rel=0.001)
    (student,) = load_registry().select(family="smollm2", students=["json"])
    one, two = (asking_seconds(student, model, device, 64, tokens) for tokens in (1, 2))
    assert two - one == pytest.approx(float(recorded[1]) / 1000, rel=0.1)
    assert 0 < PASSES_SHARE < OF_PRODUCTS < OF_COPIES < 1


def test_a_core_takes_what_was_measured(docs_fleet: ModuleType) -> None:
    """Compare a pass over 64 rows with benchmarks/speed/probe_growth.md, and a search with the recorded ones."""
    text = (ROOT / "benchmarks" / "speed" / "probe_growth.md").read_text(encoding="utf-8")
    after = {
        int(tokens): float(took) for tokens, took in re.findall(r"tokens of an answer +\| (\d+) +\| ([0-9.]+)", text)
    }
    device = DEVICES["core"].device
    model = docs_fleet.sketch(docs_fleet.SMOLLM2)
    (student,) = load_registry().select(family="smollm2", students=["json"])
    one, two = (asking_seconds(student, model, device, 64, tokens) for tokens in (1, 64))
    assert two - one == pytest.approx(after[64] - after[1], rel=0.1)
    parts = docs_fleet.like_smollm2(model, "core").parts
    searched = sum(parts[name] for name in ("prior", "start of the search", "search"))
    students = json.loads((ROOT / "reports" / "smollm2.json").read_text(encoding="utf-8"))["students"]
    recorded = sorted(one["about"]["patch"]["seconds"] for one in students)
    assert recorded[0] < searched < recorded[-1]
    page = docs_fleet.FILE.read_text(encoding="utf-8")
    words = f"took {recorded[0] / 60:.0f} to {recorded[-1] / 60:.0f} minutes of a core, this plan's {searched / 60:.0f}"
    assert words in page


def test_a_probe_that_fails_early_is_the_cheapest(docs_fleet: ModuleType) -> None:
    """Order the three kinds of probes; and a whole student's parts are all there."""
    model = docs_fleet.sketch(docs_fleet.LLAMA_7B)
    (student,) = load_registry().select(family="smollm2", students=["json"])
    device = DEVICES["h200"].device
    lost, budget, accepted = seconds_by_outcome(student, model, device)
    assert lost < budget < accepted
    need = plan(student, device, [model, model])
    one = work(student, [model, model], need.memory, device)
    assert (one.own, list(one.shared.values()), one.memory) == (model.disk, [model.disk], need.memory)
    assert min(one.parts.values()) > 0
