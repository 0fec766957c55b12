"""Check a search whose probes several processes answer: the same patch, whatever becomes of them."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from safety_harness.errors import Remark, VoidProbe
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.evaluation.gpus import Gpu
from safety_harness.evaluation.oracle import Oracle, Probe
from safety_harness.evaluation.subject import Subject
from safety_harness.gate.records import Budgets, Patch
from safety_harness.gate.results import check_to_row
from safety_harness.search import ahead
from safety_harness.search.ahead import Prober, Probers
from safety_harness.search.find import find_patch, select
from safety_harness.search.reduce import search
from safety_harness.weights.units import Unit
from tests.refusal_world import entry
from tests.search.probing import ASK, cached, probed

NORM = {"prior": "norm"}
SECONDS_TO_LOAD = 120


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait before the first probe until every process has loaded its copy, or has failed to."""
    at_once = Probers.at_once

    def when_all_are_there(self: Probers) -> int:
        for thread in self._waiting:
            thread.join(SECONDS_TO_LOAD)
        return at_once(self)

    monkeypatch.setattr(Probers, "at_once", when_all_are_there)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, patient: None) -> list[tuple[Prober, Sequence[Unit]]]:
    """What the other processes are asked about, in the order of the questions."""
    del patient
    seen: list[tuple[Prober, Sequence[Unit]]] = []
    probe = Prober.probe

    def spy(self: Prober, units: Sequence[Unit], *rest: Any) -> Probe:
        seen.append((self, units))
        return probe(self, units, *rest)

    monkeypatch.setattr(Prober, "probe", spy)
    return seen


def facts(patch: Patch) -> dict[str, Any]:
    """Return all of a patch but its time."""
    return patch.model_dump(exclude={"seconds", "key"})


@pytest.mark.slow
def test_several_processes_find_the_same_patch(
    world: Path, norm_patch: Patch, asked: list[tuple[Prober, Sequence[Unit]]]
) -> None:
    """Compare with a search on its own: the patch with its course, and the gate's check of it as JSON."""
    evaluator = open_evaluator(entry(world, search=NORM))
    patch = search(evaluator, "key", ahead=3)
    assert facts(patch) == facts(norm_patch)
    assert len({id(prober) for prober, _ in asked}) == 2
    checks = [Subject(evaluator, select(evaluator, found)).minimality(found) for found in (patch, norm_patch)]
    assert check_to_row(checks[0]) == check_to_row(checks[1])
    assert not _python_children()


def _python_children() -> list[psutil.Process]:
    """Return the processes of this one that could hold a model; multiprocessing leaves a small one that tidies up."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_a_killed_process_changes_nothing(
    world: Path, norm_patch: Patch, asked: list[tuple[Prober, Sequence[Unit]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill one of two others before its second probe, and then the last: the search ends on its own."""
    probe = Prober.probe

    def dying(self: Prober, *arguments: Any) -> Probe:
        if sum(prober is self for prober, _ in asked) == 1:
            self._process.kill()
        return probe(self, *arguments)

    monkeypatch.setattr(Prober, "probe", dying)
    with pytest.warns(Remark, match="is lost: its process ended with code -9") as said:
        patch = search(open_evaluator(entry(world, search=NORM)), "key", ahead=3)
    assert facts(patch) == facts(norm_patch)
    assert [str(one.message).rpartition("goes on ")[2] for one in said] == ["with 1 other(s).", "alone."]


def break_teacher(_: Evaluator, root: Path) -> None:
    """Take the teacher away once the search's own process has loaded it."""
    shutil.rmtree(root / "good")


def measure_otherwise(evaluator: Evaluator, _: Path) -> None:
    """Let the search's own process measure something else."""
    theirs = evaluator.identity()
    evaluator.identity = lambda: {**theirs, "device": "cuda"}  # type: ignore[method-assign]


def halve_batches(evaluator: Evaluator, _: Path) -> None:
    """Let the search's own process have halved its batches once the others are there."""
    evaluator.identity = lambda: open_identity  # type: ignore[method-assign]
    open_identity = {**Evaluator.identity(evaluator)}
    evaluator.generator.batch_size //= 2


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (break_teacher, "SourceError"),
        pytest.param(measure_otherwise, "its device is another", marks=pytest.mark.slow),
        pytest.param(halve_batches, "it asks 16 questions at once, and the search 8", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_measures_otherwise_is_left_out(
    world: Path, tmp_path: Path, norm_patch: Patch, fault: Callable[[Evaluator, Path], None], cause: str
) -> None:
    """Break the copy of the other process, in one way or another."""
    root = Path(shutil.copytree(world, tmp_path / "world"))
    evaluator = open_evaluator(entry(root, search=NORM))
    oracle = Oracle(evaluator)
    _ = oracle.refused_whole
    fault(evaluator, root)
    with pytest.warns(Remark, match=cause) as said:
        patch = search(evaluator, "key", oracle=oracle, ahead=2)
    assert facts(patch)["units"] == facts(norm_patch)["units"]
    assert len(said) == 1


def test_answers_ahead_are_kept_in_the_journal(
    world: Path, cache: Path, norm_patch: Patch, asked: list[tuple[Prober, Sequence[Unit]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Kill a search of two processes, and go on with one: what was answered ahead is not asked again."""
    chosen = entry(world, search=NORM)

    def killed(oracle: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
        if answered() >= 3:
            raise SystemExit
        return ASK(oracle, units, budgets)

    def answered() -> int:
        """Return how many answers the journal holds."""
        return sum(journal.read_bytes().count(b"\n") - 1 for journal in (cache / "patches").glob("*.journal"))

    sets = probed(monkeypatch, killed)
    with pytest.raises(SystemExit):
        find_patch(open_evaluator(chosen), ahead=2)
    assert not _python_children()
    assert answered() >= 3
    before = [*sets[:-1], *(frozenset(unit.id for unit in units) for _, units in asked[:-1])]
    sets = probed(monkeypatch)
    patch = find_patch(open_evaluator(chosen))
    assert (patch.units, patch.certificate, patch.probes) == (
        norm_patch.units, norm_patch.certificate, norm_patch.probes,
    )  # fmt: skip
    twice = [units for units in sets if units in before]
    assert all(any(units < start for start in twice) for units in before[len(twice) :])
    assert cached(cache)


def test_a_void_probe_ahead_is_unresolved(world: Path, monkeypatch: pytest.MonkeyPatch, patient: None) -> None:
    """Say of the others that all is void which lacks a unit: the certificate says that nothing was seen."""
    del patient

    def void(*_: object) -> Probe:
        raise VoidProbe("babble")

    monkeypatch.setattr(Prober, "probe", void)
    patch = search(open_evaluator(entry(world, search=NORM)), "key", ahead=2)
    assert patch.found
    assert set(patch.certificate.values()) <= {"tested", "unresolved"}


def test_ctrl_c_ends_every_process(world: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press it in the middle of delta debugging."""

    def pressed(oracle: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
        if len(sets) == 22:
            raise KeyboardInterrupt
        return ASK(oracle, units, budgets)

    sets = probed(monkeypatch, pressed)
    started = time.monotonic()
    with warnings.catch_warnings(record=True) as said, pytest.raises(KeyboardInterrupt):
        find_patch(open_evaluator(entry(world, search=NORM)), ahead=2)
    assert not [one for one in said if one.category is Remark]  # processes that are ended on purpose are not lost
    assert time.monotonic() - started < 60
    assert not _python_children()
    assert cached(cache) == []


def test_no_process_starts_where_no_search_is_needed(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gate a student that refuses enough as it is."""
    monkeypatch.setattr(Probers, "__enter__", lambda _: pytest.fail("processes were started"))
    assert search(open_evaluator(entry(world, student="good", search=NORM)), "key", ahead=2).units == ()


# --- GPUs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gpus", "expected"), [([], [None] * 3), (["a", "b"], ["b", "a", "b"]), (["a"], ["a"] * 3)])
def test_each_process_gets_a_gpu_in_turn(
    world: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[str], expected: list[str | None]
) -> None:
    """Start three others: the search's own process is on the first GPU."""
    given: list[str | None] = []
    stand_in = SimpleNamespace(identity=dict, end=lambda: None)
    monkeypatch.setattr(ahead, "visible_gpus", lambda: [Gpu(name, "A100", None) for name in gpus])
    monkeypatch.setattr(ahead, "Prober", lambda _, gpu, __: given.append(gpu) or stand_in)
    monkeypatch.setattr(Probers, "_admit", lambda *_: None)
    evaluator: Any = SimpleNamespace(student=entry(world))
    with Probers(evaluator, evaluator, 4):
        assert given == expected


def test_a_process_sees_its_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that the variable is set before anything is loaded."""
    seen: list[str] = []
    monkeypatch.setattr(ahead.signal, "signal", lambda *_: None)
    monkeypatch.setattr(ahead, "_answer", lambda *_: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    nothing: Any = None
    ahead._serve(nothing, nothing, "GPU-b", 1)
    assert seen == ["GPU-b"]


def test_a_process_that_cannot_start_is_said(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system refuse a further process."""

    def refuse(*_: object) -> Prober:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(ahead, "Prober", refuse)
    with pytest.warns(Remark, match=r"it cannot be started \(Resource temporarily unavailable\)") as said:
        assert search(open_evaluator(entry(world, search=NORM)), "key", ahead=2).found
    assert len(said) == 1


def test_a_model_on_several_gpus_is_asked_one_at_a_time(world: Path) -> None:
    """Spread it by ``device_map``: no GPU is left for a copy."""
    student = entry(world)
    evaluator: Any = SimpleNamespace(student=SimpleNamespace(id=student.id, family=SimpleNamespace(device_map="auto")))
    with pytest.warns(Remark, match="answered one at a time"), ahead.probers(evaluator, evaluator, 4) as others:
        assert others is None
