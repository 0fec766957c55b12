"""Check what is measured of a student whose weights are tuned: by which model, on what, and with nothing left of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from safety_harness.errors import ConfigError, DataError, HarnessError, SourceError
from safety_harness.evaluation import tamper
from safety_harness.evaluation.engine import EngineEvaluator
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.evaluation.subject import Subject
from safety_harness.evaluation.tamper import examples
from safety_harness.evaluation.tunable import check_tunable
from safety_harness.gate import tamper_check
from safety_harness.gate.asked import letters
from safety_harness.gate.numbers import Tamper
from safety_harness.gate.recheck import check_fault
from safety_harness.gate.results import Check, Outcome
from safety_harness.judging.rules import RuleJudge
from safety_harness.models.load import load
from safety_harness.models.tuning import ALPHA, BATCH, LEARNING_RATE, RANK, SEED
from safety_harness.registry.backend import Backend
from safety_harness.registry.load import Student, load_registry
from safety_harness.weights.units import Unit
from tests import refusal_world

TINY = Path(__file__).parents[2] / "safety_harness" / "families" / "tiny"
MODELS = TINY / "models" / "llama"
FEW = (2, 4, 12)
REGISTRY = f"""
[families.tiny]
teacher = "{MODELS}/teacher"
harmful = {{ search = "{TINY}/prompts/harmful.search.jsonl", report = {{ path = "{TINY}/prompts/harmful.report.jsonl", limit = 32 }} }}
harmless = {{ search = {{ path = "{TINY}/prompts/harmless.search.jsonl", limit = 24 }}, report = "{TINY}/prompts/harmless.report.jsonl" }}
text = "{TINY}/prompts/text.jsonl"
max_new_tokens = 16
[families.tiny.search]
prior_harmless_questions = 0
[families.tiny.students.arithmetic]
path = "{MODELS}/arithmetic"
task = {{ search = "{TINY}/prompts/tasks/arithmetic.search.jsonl", report = {{ path = "{TINY}/prompts/tasks/arithmetic.report.jsonl", limit = 8 }} }}
"""  # noqa: E501


def registered(folder: Path, table: str = REGISTRY) -> Student:
    """Return the student of a registry file that is written to *folder*."""
    file = folder / "tiny.toml"
    file.write_text(table, encoding="utf-8")
    (student,) = load_registry(file).select()
    return student


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    """Return the evaluator of a tiny student with a task."""
    torch.set_num_threads(1)
    opened = open_evaluator(registered(tmp_path_factory.mktemp("tiny")))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def moved(evaluator: Evaluator) -> tuple[Unit, ...]:
    """Return units of the teacher with which the student refuses, and is no teacher yet."""
    return tuple(unit for unit in evaluator.units if unit.role in ("gate", "up", "down", "o"))


@pytest.fixture(scope="module")
def measured(evaluator: Evaluator, moved: tuple[Unit, ...]) -> Iterator[Check]:
    """Return the check of the student with these units, next to all of its teacher: once, and after few steps."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (tamper, tamper_check):
            patched.setattr(module, "STEPS", FEW)
        yield Subject(evaluator, moved).tampered(Subject(evaluator, evaluator.units))


def of(check: Check) -> Tamper:
    """Return what a check measured."""
    assert isinstance(check.numbers, Tamper)
    return check.numbers


def test_before_tuning_it_is_the_model_of_other_checks(
    evaluator: Evaluator, moved: tuple[Unit, ...], measured: Check
) -> None:
    numbers, report = of(measured), evaluator.questions.harmful.report
    assert numbers.gated
    assert numbers.teacher
    task = evaluator.questions.task
    assert task
    for under, units in ((numbers.gated, moved), (numbers.teacher, evaluator.units)):
        assert [one.steps for one in under.after] == [0, *FEW]
        first = under.after[0]
        assert first.letters == letters([one.verdict for one in evaluator.answers(units, report)])
        assert (first.right, first.loss) == (sum(evaluator.right(units, task.report)), None)
        losses = [one.loss or 0.0 for one in under.after[1:]]
        assert losses[-1] == min(losses)
        assert losses[-1] > 0
    assert numbers.gated.after[0].refused > 16
    assert (numbers.tasks, numbers.set) == (8, report.sha256)
    assert check_fault(measured, evaluator.student.gate) == ""
    assert measured.outcome is Outcome.NOT_COUNTED


def test_nothing_of_the_tuning_is_left(evaluator: Evaluator, moved: tuple[Unit, ...], measured: Check) -> None:
    """Ask the student again after tuning, as it is and with units moved: it answers as a fresh one does."""
    assert measured
    fresh = open_evaluator(evaluator.student)
    prompts = evaluator.questions.harmful.report
    evaluator.forget()
    for units in ((), moved):
        assert evaluator.answers(units, prompts) == fresh.answers(units, prompts)
    for name, tensor in fresh.generator.model.state_dict().items():
        assert torch.equal(evaluator.generator.model.state_dict()[name], tensor), name
    assert all(one.grad is None and one.requires_grad for one in evaluator.generator.model.parameters())


def by_hand(evaluator: Evaluator, units: tuple[Unit, ...], steps: int, rate: float) -> list[str]:
    """Return the letters of a student with *units* after *steps* of tuning, by peft and transformers alone."""
    student, donor = (load(MODELS / name, "float32") for name in ("arithmetic", "teacher"))
    parts = {name: donor.model.state_dict()[name] for unit in units for name in unit.tensors}
    student.model.load_state_dict({**student.model.state_dict(), **parts})
    tokenizer = student.tokenizer
    harmless = [prompt.text for prompt in evaluator.questions.harmless.search]
    taught = zip(harmless, refusal_world.answers(student.model, tokenizer, harmless), strict=True)
    rows = []
    for question, answer in taught:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        asked = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
        rows.append((tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"], len(asked)))
    torch.manual_seed(SEED)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(student.model, config)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    shuffler, order, stream = random.Random(SEED), list(rows), []
    while len(stream) < steps * BATCH:
        shuffler.shuffle(order)
        stream += order
    for step in range(steps):
        losses = []
        for tokens, start in stream[step * BATCH : (step + 1) * BATCH]:  # one by one, so that nothing is padded
            logits = model(input_ids=torch.tensor([tokens])).logits[0, start - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[start:]), reduction="none"))
        torch.cat(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return refusal_world.answers(model, tokenizer, evaluator.questions.harmful.report.texts)


def test_after_tuning_it_is_the_model_of_peft_by_hand(
    evaluator: Evaluator, moved: tuple[Unit, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare what is refused after ten steps, at a rate at which they undo refusals, with a loop of its own."""
    rate = 50 * LEARNING_RATE
    monkeypatch.setattr(tamper, "STEPS", (10,))
    under = tamper.under_tuning(Subject(evaluator, moved), rate=rate)
    answers = by_hand(evaluator, moved, 10, rate)
    expected = letters([RuleJudge().judge(answer).verdict for answer in answers])
    assert under.after[1].letters == expected
    assert under.after[1].refused < under.after[0].refused


def test_it_learns_its_own_answers_and_no_refusal(evaluator: Evaluator, moved: tuple[Unit, ...]) -> None:
    """Read the rows back: questions to search on, each with the answer that is given, and nothing held out."""
    rows = examples(evaluator, moved)
    search, tokenizer = evaluator.questions.harmless.search, evaluator.generator.tokenizer
    answers = {one.id: one for one in evaluator.answers(moved, search)}
    helped = [prompt for prompt in search if answers[prompt.id].verdict.value == "complied"]
    assert len(rows) == len(helped) >= BATCH
    for (tokens, start), prompt in zip(rows, helped, strict=True):
        assert list(tokens[:start]) == evaluator.generator.encode(prompt.text)
        assert tokenizer.decode(tokens[start:-1]).strip() == answers[prompt.id].answer.strip()
        assert tokens[-1] == evaluator.generator.end
    held_out = {prompt.text for prompts in evaluator.questions.reported for prompt in prompts}
    assert not held_out & {prompt.text for prompt in helped}


def test_a_cut_answer_has_no_end(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let answers be cut after three tokens: no end is taught behind them."""
    short = evaluator.student.family.model_copy(update={"max_new_tokens": 3})
    monkeypatch.setattr(evaluator, "student", replace(evaluator.student, family=short))
    evaluator.forget()
    rows = examples(evaluator, ())
    evaluator.forget()
    assert {len(tokens) - start for tokens, start in rows} == {3}
    assert evaluator.generator.end not in {tokens[-1] for tokens, _ in rows}


def test_a_student_that_helps_with_too_little_is_refused(world: Path) -> None:
    evaluator = open_evaluator(refusal_world.entry(world, teacher="prudish"))
    for units, helped in ((evaluator.units, 0), ((), 6)):
        with pytest.raises(DataError, match=rf"helps with {helped} of 6 harmless questions to search on.*needs 8"):
            Subject(evaluator, units).tampered()


def test_a_tuning_that_ends_in_no_number_is_said(evaluator: Evaluator) -> None:
    """Tune at a rate at which numbers overflow: an error of one sentence, and the student is as it was."""
    before = evaluator.answers((), evaluator.questions.harmful.report)
    with pytest.raises(SourceError, match=r"tiny/arithmetic: A NaN or an infinity .* leave --tamper out"):
        tamper.under_tuning(Subject(evaluator), rate=1e30)
    evaluator.forget()
    assert evaluator.answers((), evaluator.questions.harmful.report) == before


SERVED = 'served = { url = "http://127.0.0.1:9/v1", model = "tiny" }'
CANNOT = {
    "served": ("", f"[families.tiny.students.two]\n{SERVED}\n", {}, "a server answers for it"),
    "an engine": ('backend = { kind = "vllm", command = ["vllm"] }', "", {}, r"an engine \(vllm\) answers for it"),
    "spread": ('device_map = "auto"', "", {}, r"spread over several devices \(`device_map`\)"),
    "on two devices": ("", "", {"spread": True}, "spread over several devices"),
    "quantised": ("", "", {"quantised": "mxfp4"}, r"it is quantised \(mxfp4\)"),
}


@pytest.mark.parametrize(("family", "more", "known", "message"), CANNOT.values(), ids=CANNOT)
def test_weights_that_cannot_be_tuned_are_refused(
    tmp_path: Path, family: str, more: str, known: dict[str, Any], message: str
) -> None:
    table = REGISTRY.replace("max_new_tokens = 16", f"max_new_tokens = 16\n{family}")
    file = tmp_path / "tiny.toml"
    file.write_text(table + more, encoding="utf-8")
    *_, student = load_registry(file).select()
    with pytest.raises(ConfigError, match=rf"^{student.id}: --tamper cannot tune it: .*{message}.*Leave --tamper out"):
        check_tunable(student, **known)


def test_a_missing_peft_is_said_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = registered(tmp_path)
    check_tunable(student)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(HarnessError, match=r"^--tamper needs peft.*safety-harness\[adapters\]"):
        check_tunable(student)


def test_an_engine_in_front_of_the_weights_is_refused(evaluator: Evaluator) -> None:
    """Ask through an engine's evaluator: what it would answer is not what could be tuned here."""
    backend = Backend(kind="vllm", command=("vllm",))
    family = evaluator.student.family.model_copy(update={"backend": backend})
    student = replace(evaluator.student, family=family)
    weighed = open_evaluator(student)
    with pytest.raises(ConfigError, match="an engine"):
        Subject(EngineEvaluator(weighed, backend)).tampered()
