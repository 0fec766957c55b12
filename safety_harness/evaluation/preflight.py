"""Check the files of a run before a model is loaded."""

from __future__ import annotations

from safety_harness.registry.fetch import resolve
from safety_harness.registry.load import Student
from safety_harness.registry.schema import PromptSource, Source
from safety_harness.registry.splits import further_questions, load_questions
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint, check_shapes


def check_local_files(student: Student) -> None:
    """Check the questions and weights of *student* that lie on this machine. Downloads are checked later.

    Raises:
        DataError, SourceError: as :func:`load_questions`, or a weight file is missing, pickled or without config.
        LineageError, UnitError: student and teacher do not fit together, or have no unit of a wanted role.
    """
    if all(source.path for source in _prompt_sources(student)):
        questions = load_questions(student)
        if all(source.path for source in student.family.further.values()):
            further_questions(student.family, questions)
    for spec in student.models:
        if spec.path:
            Checkpoint(resolve(spec))
        for adapter in spec.adapters:
            resolve(Source(path=adapter))
    if student.spec.path and student.family.teacher.path:
        checkpoint, teacher = Checkpoint(resolve(student.spec)), Checkpoint(resolve(student.family.teacher))
        check_shapes(checkpoint, teacher, enumerate_units(checkpoint.config, checkpoint.shapes, student.search.roles))


def _prompt_sources(student: Student) -> list[PromptSource]:
    """Return every source of prompts that *student* is searched and gated on."""
    family, task = student.family, student.spec.task
    splits = [family.harmful, family.harmless, *([task] if task else [])]
    return [family.text, *(side for split in splits for side in (*split.searched, split.report))]
