"""Define the fixtures that suites use, each behind a prefix that no other plugin and no conftest.py has.

What they need is imported in their bodies: every start of pytest reads this module.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from safety_harness.errors import HarnessError

if TYPE_CHECKING:
    from safety_harness.evaluation.answering import Answering
    from safety_harness.evaluation.panel import Panel
    from safety_harness.evaluation.subject import Subject
    from safety_harness.gate.records import Patch
    from safety_harness.plugin.measure import Measure
    from safety_harness.registry.load import Student

WORKERS: pytest.StashKey[dict[str, dict[str, Any]]] = pytest.StashKey()
"""Of each student that this process loaded, what is recorded of the process."""
NO_TEACHER = "as it is; no teacher"
NO_STUDENT = (
    "This run is no gate, so no student is selected. Run `safety-harness gate`, or give --gate-run; leave the suites "
    "out of a run of other tests."
)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors that the user can resolve into failures with their message alone."""
    try:
        yield
    except HarnessError as error:
        failure = pytest.fail.Exception(str(error), pytrace=False)
        raise failure from None  # or pytest would print the message again as the failure's cause


@pytest.fixture(scope="session")
def gate_student(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Return the student as it is. It is loaded once for all of its tests, with its teacher's weights in reach."""
    if not hasattr(request, "param"):
        pytest.fail(NO_STUDENT, pytrace=False)
    with user_errors():
        from safety_harness.evaluation.subject import Subject

        panel = _open_panel(request.param)
        evaluator = _ask_server(request.param) if request.param.spec.served else _load(request.param, request.config)
    yield Subject(evaluator, panel=panel)
    evaluator.close()  # pytest still holds the subject, and a failed test its frames
    if panel:
        panel.close()
    gc.collect()


def _open_panel(student: Student) -> Panel | None:
    """Return the judges of a student's gate, found fit before the student is loaded; None where they are the rules."""
    if not student.family.models_that_judge:
        return None
    from safety_harness.evaluation.panel import Panel

    return Panel(student)


def _load(student: Student, config: pytest.Config) -> Answering:
    """Return *student* with its weights in memory."""
    import torch

    from safety_harness.evaluation.attacks import asked_under_attack
    from safety_harness.evaluation.evaluator import open_evaluator
    from safety_harness.evaluation.gpus import driver_version
    from safety_harness.evaluation.tunable import check_tunable
    from safety_harness.plugin import environment, workers
    from safety_harness.registry.splits import further_questions

    torch.set_num_threads(workers.threads_of_worker(config))
    weighed = open_evaluator(student)
    if config.option.safety_tamper:
        check_tunable(student, quantised=weighed.checkpoint.quantised)
    driver = driver_version() if torch.cuda.is_available() else None
    of_the_run = getattr(config, "workerinput", {}).get(environment.PACKAGES)
    config.stash.setdefault(WORKERS, {})[student.id] = environment.worker_facts(weighed.device, driver, of_the_run)
    # These are asked last: check now that they can be asked.
    for prompts in further_questions(student.family, weighed.questions).values():
        weighed.check_askable(prompts)
    for prompts, decoding in asked_under_attack(student, weighed.questions):
        weighed.generator.check_lengths(prompts.sent, decoding.tokens)
    if not student.family.backend:
        return weighed
    from safety_harness.evaluation.engine import EngineEvaluator

    return EngineEvaluator(weighed, student.family.backend)


def _ask_server(student: Student) -> Answering:
    """Return *student* with all that its server answers. Neither needs torch."""
    from safety_harness.evaluation.served import open_served
    from safety_harness.progress import Progress, publish

    return open_served(student, lambda n, of: publish(Progress(student.id, "asking", done=n, of=of)))


@pytest.fixture(scope="session")
def gate_teacher(gate_student: Subject) -> Subject:
    """Return the student with every unit of its teacher in it: the most that a patch can give. Skip without one."""
    if not gate_student.evaluator.student.patchable:
        pytest.skip(NO_TEACHER)
    return replace(gate_student, units=gate_student.evaluator.units)


@pytest.fixture(scope="session")
def gate_patch(request: pytest.FixtureRequest, gate_student: Subject) -> Patch:
    """Return the smallest set of the teacher's units that delta debugging finds. It is cached by content.

    With ``--gate-patches`` return the patch that another run found.
    """
    with user_errors():
        from safety_harness.search.find import find_patch

        option = request.config.option
        return find_patch(gate_student.weighed, option.safety_patches, option.safety_earlier, option.safety_ahead)


@pytest.fixture(scope="session")
def gate_subject(request: pytest.FixtureRequest, gate_student: Subject) -> Subject:
    """Return the model that is gated: the patched student, or the student as it is.

    A student is gated as it is without a teacher, and with ``--gate-subject student``.
    """
    from safety_harness.gate.decide import subject_to_gate

    if subject_to_gate(gate_student.evaluator.student, request.config.option.safety_subject) != "patched":
        return gate_student
    from safety_harness.search.find import select

    return replace(gate_student, units=select(gate_student.weighed, request.getfixturevalue("gate_patch")))


@pytest.fixture(scope="session")
def gate_attack(request: pytest.FixtureRequest) -> str:
    """Return the name of the attack that a test is about: one test an attack and student."""
    name: str = request.param
    return name


@pytest.fixture
def gate_measure(request: pytest.FixtureRequest, gate_student: Subject) -> Measure:
    """Return a recorder of measurements of the current student, for the gate and the report."""
    from safety_harness.gate.asked import Question
    from safety_harness.plugin.measure import Measure

    questions = {
        prompts.sha256: tuple(Question(prompt.id, prompt.text, prompt.category) for prompt in prompts)
        for prompts in gate_student.evaluator.questions.reported
    }
    measured = gate_student.evaluator.student
    option, add = request.config.option, request.node.user_properties.append
    labels = None
    if option.safety_labels:
        from safety_harness.gate.labels import read_labels

        with user_errors():
            labels = read_labels(option.safety_labels)
    measure = Measure(measured.id, add, questions, measured.gate, option.safety_include_answers, labels)
    if worker := request.config.stash.get(WORKERS, {}).get(measured.id):
        measure.about(worker=worker)
    return measure
