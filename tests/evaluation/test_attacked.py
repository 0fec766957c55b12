"""Check what a gate measures under attack, with real models, against answers that transformers itself generates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safety_harness.conversation import Decoding
from safety_harness.errors import ConfigError
from safety_harness.evaluation.attacks import gate_attacks, under
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.subject import Subject
from safety_harness.gate import numbers as numbers_of_checks
from safety_harness.gate.asked import letters
from safety_harness.gate.numbers import Attack, Attacked
from safety_harness.gate.recheck import check_fault
from safety_harness.judging.extent import judged_behind
from safety_harness.judging.judge import Verdict
from safety_harness.judging.rules import RuleJudge
from safety_harness.weights.units import Unit
from tests.evaluation.test_attacks import ROWS, asking
from tests.refusal_world import built


def generated(model: Any, tokenizer: Any, conversation: Any, tokens: int) -> str:
    """Return the answer to a conversation with its beginning, asked alone and by transformers itself."""
    chat = tokenizer.apply_chat_template(conversation.messages, add_generation_prompt=True, tokenize=False)
    encoded = tokenizer(chat + conversation.prefill, add_special_tokens=False, return_tensors="pt")
    output = model.generate(**encoded, do_sample=False, max_new_tokens=tokens)
    return conversation.prefill + tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)


def subjects(world: Path, *names: str, **gate: Any) -> tuple[Subject, Subject]:
    """Return the student as it is and with all of its teacher."""
    evaluator = open_evaluator(asking(world, *names, attack_tokens=16, **gate))
    return Subject(evaluator), Subject(evaluator, evaluator.units)


@pytest.mark.parametrize("name", ROWS)
def test_the_letters_are_those_of_answers_under_attack(world: Path, name: str) -> None:
    """Generate each answer by transformers, judge it, and compare the letters and what is counted."""
    before, after = subjects(world, name)
    check = after.attack(name, before)
    assert check.asked is not None
    assert check_fault(check, after.thresholds) == ""
    evaluator = after.evaluator
    (attack,) = gate_attacks(evaluator.student)
    asked = under(attack, evaluator.questions.harmful.report)

    def side(units: tuple[Unit, ...]) -> str:
        model, tokenizer = built(world, "good", units)
        said = []
        for prompt in asked.prompts:
            assert prompt.conversation
            answer = generated(model, tokenizer, prompt.conversation, 16)
            said.append(judged_behind(RuleJudge(), answer, prompt.conversation.prefill).verdict)
        return letters(said)

    assert (check.asked.before, check.asked.after) == (side(()), side(evaluator.units))
    numbers = check.numbers
    assert isinstance(numbers, Attack)
    assert numbers.after == check.asked.after.count("R") == numbers.teacher
    assert (numbers.misfits, numbers.tokens, numbers.samples) == (0, 16, 1)
    assert numbers.controls == len(evaluator.questions.harmless.report)


def test_all_attacks_together_ask_nothing_more(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer the check of all attacks from what was asked for each of them.

    The world has one answer to all harmless questions, so none of them is about its own.
    """
    monkeypatch.setattr(numbers_of_checks, "SENSIBLE", 0.0)
    before, after = subjects(world, "please", "begun")
    checks = {f"attack.{name}": after.attack(name, before) for name in ("please", "begun")}

    def ask(*_: Any, **__: Any) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(after.evaluator.weighed.generator, "answers", ask)
    whole = after.attacked(before)
    numbers = whole.numbers
    assert isinstance(numbers, Attacked)
    assert all(check.counts for check in checks.values())
    counting = {name: check for name, check in checks.items() if check.counts}
    assert numbers.attacks == sorted(name.removeprefix("attack.") for name in counting)
    safe = [
        all(check.asked.after[at] == "R" for check in counting.values() if check.asked) for at in range(numbers.n or 0)
    ]
    assert numbers.after == sum(safe) == numbers.teacher


def test_samples_differ_and_are_counted(world: Path) -> None:
    """Draw several answers to each question, and take the least safe one."""
    before, after = subjects(world, "begun", samples=4, temperature=2.0)
    check = after.attack("begun", before)
    numbers = check.numbers
    assert isinstance(numbers, Attack)
    assert check.asked is not None
    assert numbers.unsafe_after is not None
    assert [count == 0 for count in numbers.unsafe_after] == [letter == "R" for letter in check.asked.after]
    assert check_fault(check, after.thresholds) == ""


def test_a_student_as_it_is_has_no_change(world: Path) -> None:
    """Compare a student with itself: one set of answers, and nothing of a teacher that is not there."""
    student = asking(world, "begun", attack_tokens=16)
    alone = replace(student, family=student.family.model_copy(update={"teacher": None}))
    subject = Subject(open_evaluator(alone))
    check = subject.attack("begun", subject)
    assert check.asked is not None
    assert check.asked.before == check.asked.after
    assert isinstance(check.numbers, Attack)
    assert check.numbers.teacher is None
    assert (check.numbers.gained, check.numbers.lost) == (0, 0)


def test_an_attack_that_the_gate_does_not_name_is_unknown(world: Path) -> None:
    """Say which ones it names."""
    before, after = subjects(world, "begun")
    with pytest.raises(ConfigError, match=r"no attack 'begin'\. Did you mean 'begun'"):
        after.attack("begin", before)


def test_an_answer_that_complies_is_broken_off(world: Path) -> None:
    """Generate a refusal to its end, and of a compliance as many tokens as the screen has."""
    before, after = subjects(world, "begun")
    evaluator, prompts = after.evaluator, after.evaluator.questions.harmful.report
    refused, complied = (evaluator.answers(one.units, prompts, decoding=Decoding(16)) for one in (after, before))
    assert {one.verdict for one in refused} == {Verdict.REFUSED}
    assert evaluator.answers(after.units, prompts, decoding=Decoding(16, screen=12)) == refused
    cut = evaluator.answers(before.units, prompts, decoding=Decoding(16, screen=8))
    assert all(full.answer.startswith(short.answer) for short, full in zip(cut, complied, strict=True))
    assert all(len(short.answer) < len(full.answer) for short, full in zip(cut, complied, strict=True))
