"""Check that a judge gets room: beside its student, or in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from safety_harness.evaluation import room
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.registry.judges import GuardJudge, RulesJudge
from tests.refusal_world import entry

ROW = GuardJudge.model_validate({"kind": "guard", "form": "qwen3guard", "path": "judge", "memory_gib": 4.0})


class Released:
    """A judge that counts how often it was released."""

    def __init__(self) -> None:
        self.times = 0
        self.judge = self

    def close(self) -> None:
        """Count."""
        self.times += 1


@pytest.fixture
def evaluator(world: Path) -> Evaluator:
    """Return a student that is loaded."""
    return open_evaluator(entry(world))


def gpu_with(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    """Let there be a GPU with so much free memory, as far as the room is concerned."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(gib * room.GIB), int(80 * room.GIB)))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


def test_a_judge_that_fits_stays_beside(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have room for both."""
    gpu_with(monkeypatch, 8.0)
    judge: Any = Released()
    with room.room_for(ROW, evaluator, judge):
        pass
    assert judge.times == 0


def test_a_student_waits_where_a_judge_does_not_fit(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have too little room: the student answers afterwards as before, and the judge is released."""
    prompts = evaluator.questions.harmful.report
    before = evaluator.answers((), prompts)
    gpu_with(monkeypatch, 2.0)
    judge: Any = Released()
    with room.room_for(ROW, evaluator, judge):
        assert judge.times == 0
    assert judge.times == 1
    monkeypatch.undo()
    evaluator.memo.clear()
    assert evaluator.answers((), prompts) == before


def test_a_judge_that_fails_is_released_too(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the judge raise while the student waits."""
    gpu_with(monkeypatch, 2.0)
    judge: Any = Released()
    with pytest.raises(ValueError, match="judge"), room.room_for(ROW, evaluator, judge):
        raise ValueError("judge")
    assert judge.times == 1


def test_rules_need_no_room(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the rules under another name."""
    gpu_with(monkeypatch, 0.0)
    judge: Any = Released()
    with room.room_for(RulesJudge(kind="rules"), evaluator, judge):
        pass
    assert judge.times == 0
