"""Define the fixtures that suites use. What needs torch is imported in their bodies, so this import stays cheap."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from safety_harness.errors import HarnessError
from safety_harness.plugin import workers
from safety_harness.registry.settings import GateSettings

if TYPE_CHECKING:
    from safety_harness.evaluation.subject import Subject
    from safety_harness.gate.records import Patch
    from safety_harness.gate.results import Check, Question

PROPERTY = "safety_harness"
EXPLAINED = {"explained": True}
"""The row of a test that failed because a check of its own did not pass."""
NO_TEACHER = "as it is; no teacher"
NO_STUDENT = "no student is selected: run `pytest suites/`, or give --gate-run"


@dataclass(frozen=True)
class Measure:
    """Record what a suite measured for the gate and the report: ``measure(check)``, ``measure.about(name=...)``."""

    student: str
    add: Callable[[tuple[str, object]], None] = field(repr=False)
    questions: Mapping[str, tuple[Question, ...]] = field(default_factory=dict, repr=False)
    """By the sha256 of their set, the questions whose texts the report shows."""
    gate: GateSettings = field(default_factory=GateSettings, repr=False)
    """The thresholds that the student is gated by."""
    include_answers: bool = False

    def __call__(self, check: Check) -> Check:
        """Record a check and return it, so that a suite can assert it.

        Raises:
            ValueError: the check cannot have come out of its own letters and numbers.
        """
        from safety_harness.gate.recheck import check_fault
        from safety_harness.gate.results import check_to_row

        if fault := check_fault(check, self.gate):
            raise ValueError(f"measure: {fault}")
        shown = check if self.include_answers else check.without_answers()
        self._add(check=check_to_row(shown))
        if check.asked and (asked := self.questions.get(check.asked.set)):
            self._add(questions={check.asked.set: [[one.id, one.text, one.category] for one in asked]})
        return check

    def about(self, **facts: Any) -> None:
        """Record facts that decide nothing: those that the reports show, and a suite's own.

        Raises:
            ValueError: a fact that the reports show is not what they expect.
        """
        from safety_harness.gate.records import About, plain, record

        self._add(about=plain(record(About, facts, "measure.about")))

    def _add(self, **row: Any) -> None:
        self.add((PROPERTY, {"student": self.student, **row}))


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors that the user can resolve into failures with their message alone."""
    message = None
    try:
        yield
    except HarnessError as error:
        message = str(error)
    if message is not None:  # out here, or pytest would print the message again as the failure's cause
        pytest.fail(message, pytrace=False)


@pytest.fixture(scope="session")
def student(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """The student as it is, loaded once for all of its tests, with access to its teacher's weights."""
    if not hasattr(request, "param"):
        pytest.skip(NO_STUDENT)
    with user_errors():
        import torch

        from safety_harness.evaluation.evaluator import open_evaluator
        from safety_harness.evaluation.subject import Subject
        from safety_harness.registry.splits import further_questions

        torch.set_num_threads(workers.threads_of_worker(request.config))
        evaluator = open_evaluator(request.param)
        # These are asked last, and only recorded: check now that they can be asked.
        for prompts in further_questions(evaluator.student.family, evaluator.questions).values():
            evaluator.check_askable(prompts)
    yield Subject(evaluator)
    evaluator.close()  # pytest still holds the subject, and a failed test its frames
    gc.collect()


@pytest.fixture(scope="session")
def teacher(student: Subject) -> Subject:
    """The student with every unit of its teacher in it: the most that a patch can give. Skips without a teacher."""
    if not student.evaluator.student.patchable:
        pytest.skip(NO_TEACHER)
    from safety_harness.evaluation.subject import Subject

    return Subject(student.evaluator, student.evaluator.units)


@pytest.fixture(scope="session")
def patch(request: pytest.FixtureRequest, student: Subject) -> Patch:
    """The smallest set of the teacher's units that delta debugging finds, cached by content.

    With ``--gate-patches`` it is the patch that another run found.
    """
    with user_errors():
        from safety_harness.search.find import find_patch

        return find_patch(student.evaluator, request.config.option.safety_patches)


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest, student: Subject) -> Subject:
    """The model that is gated: the patched student, or the student as it is.

    As it is a student is gated without a teacher, and with ``--gate-subject student``.
    """
    from safety_harness.gate.decide import subject_to_gate

    if subject_to_gate(student.evaluator.student, request.config.option.safety_subject) != "patched":
        return student
    from safety_harness.evaluation.subject import Subject
    from safety_harness.search.find import select

    return Subject(student.evaluator, select(student.evaluator, request.getfixturevalue("patch")))


@pytest.fixture
def measure(request: pytest.FixtureRequest, student: Subject) -> Measure:
    """A recorder of measurements of the current student, for the gate and the report."""
    from safety_harness.gate.results import Question

    questions = {
        prompts.sha256: tuple(Question(prompt.id, prompt.text, prompt.category) for prompt in prompts)
        for prompts in student.evaluator.questions.reported
    }
    measured = student.evaluator.student
    answers = request.config.option.safety_include_answers
    return Measure(measured.id, request.node.user_properties.append, questions, measured.gate, answers)
