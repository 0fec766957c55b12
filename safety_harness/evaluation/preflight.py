"""Check the files of a run before a model is loaded."""

from __future__ import annotations

from safety_harness.evaluation.served import announced
from safety_harness.registry.fetch import resolve
from safety_harness.registry.load import Student
from safety_harness.registry.schema import Source
from safety_harness.registry.splits import further_questions, load_questions
from safety_harness.served.client import read_key
from safety_harness.weights.adapter import require_adapter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint, check_shapes


def check_local_files(student: Student) -> None:
    """Check the questions and weights of *student* that lie on this machine. Downloads are checked later.

    Raises:
        DataError, SourceError: as :func:`load_questions`, or a model or adapter folder is not whole.
        LineageError, UnitError: student and teacher do not fit together, or have no unit of a wanted role.
    """
    family, task = student.family, student.spec.task
    if student.spec.served:
        read_key(student.spec.served)
        announced(student)
        return
    splits = [family.harmful, family.harmless, *([task] if task else [])]
    sources = [family.text, *(source for split in splits for source in (*split.searched, split.report))]
    if all(source.path for source in sources):
        questions = load_questions(student)
        if all(source.path for source in family.further.values()):
            further_questions(family, questions)
    for spec in student.models:
        if spec.path:
            Checkpoint(resolve(spec), as_it_is=not student.patchable)
        for adapter in spec.adapters:
            require_adapter(resolve(Source(path=adapter)))
    if student.spec.path and student.patchable and family.teacher and family.teacher.path:
        checkpoint, teacher = Checkpoint(resolve(student.spec)), Checkpoint(resolve(family.teacher))
        check_shapes(checkpoint, teacher, enumerate_units(checkpoint.config, checkpoint.shapes, student.search.roles))
