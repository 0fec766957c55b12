"""Check the files of a run before a model is loaded, and fetch the question sets that it names."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from safety_harness.errors import HarnessError, SourceError
from safety_harness.evaluation.attacks import check_attacks
from safety_harness.evaluation.panel import announced as announced_judges
from safety_harness.evaluation.served import announced
from safety_harness.evaluation.tunable import check_tunable
from safety_harness.files import CACHE_VARIABLE
from safety_harness.judges.open import open_judge
from safety_harness.registry.fetch import is_here, resolve, resolve_prompts
from safety_harness.registry.judges import EndpointJudge, JudgeRow, ModelJudge
from safety_harness.registry.load import Student
from safety_harness.registry.named import download_size
from safety_harness.registry.sources import PromptSource, Source
from safety_harness.registry.splits import further_questions, load_questions
from safety_harness.served.client import read_key
from safety_harness.served.engine import check_backend
from safety_harness.weights.adapter import require_adapter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint, check_shapes


def check_local_files(student: Student) -> None:
    """Check the questions and weights of *student* that lie on this machine, and fetch the sets that it names.

    Other downloads are checked later.

    Raises:
        DataError, SourceError: as :func:`load_questions`, or a model or adapter folder is not whole.
        LineageError, UnitError: student and teacher do not fit together, or have no unit of a wanted role.
    """
    family, task = student.family, student.spec.task
    splits = [family.harmful, family.harmless, *([task] if task else [])]
    sources = [
        family.text,
        *family.must.values(),
        *(source for split in splits for source in (*split.searched, split.report)),
    ]
    further = tuple(family.further.values())
    for source in (*sources, *further):
        fetch_named(source)
    if student.spec.served:
        read_key(student.spec.served)
        check_attacks(student, load_questions(student))
        announced(student)
        return
    if family.backend:
        check_backend(family.backend)
    if all(source.path or source.set for source in sources):
        questions = load_questions(student)
        check_attacks(student, questions)
        if all(source.path or source.set for source in further):
            further_questions(family, questions)
    for spec in student.models:
        if spec.path:
            Checkpoint(resolve(spec), as_it_is=not student.patchable)
        for adapter in spec.adapters:
            require_adapter(resolve(Source(path=adapter)))
    if student.spec.path and student.patchable and family.teacher and family.teacher.path:
        checkpoint, teacher = Checkpoint(resolve(student.spec)), Checkpoint(resolve(family.teacher))
        roles, rank = student.search.roles, student.search.components
        check_shapes(checkpoint, teacher, enumerate_units(checkpoint.config, checkpoint.shapes, roles, rank))


def check_tamper(student: Student) -> None:
    """Check that the weights of *student* can be tuned, as far as that needs no model.

    Raises:
        HarnessError: they cannot.
    """
    as_it_is = student.spec.path and not student.patchable and not student.spec.served
    check_tunable(student, quantised=Checkpoint(resolve(student.spec), as_it_is=True).quantised if as_it_is else "")


def check_judges(students: Sequence[Student], *, tampered: bool = False) -> None:
    """Check the judges of *students* as far as that needs no model: keys, budgets and folders.

    The budgets are those of a run that is *tampered* with, or is not.

    Raises:
        ConfigError, SourceError: a judge cannot be used.
    """
    rows = {name: row for student in students for name, row in student.family.models_that_judge.items()}
    for name, row in rows.items():
        check_judge(name, row)
    if rows:
        announced_judges(students, tampered=tampered)


def check_judge(name: str, row: JudgeRow) -> None:
    """Check one judge as far as that needs no model.

    Raises:
        ConfigError, SourceError: it cannot be used.
    """
    open_judge(name, row)
    if isinstance(row, EndpointJudge):
        read_key(row)
    if isinstance(row, ModelJudge) and row.path and not (row.path / "config.json").exists():
        raise SourceError(f"judge {name}: {row.path} holds no model (no config.json). Check its path.")


def fetch_named(source: PromptSource) -> None:
    """Fetch a named set that is not here yet, and say so first: its user may not know that it is fetched at all.

    Raises:
        SourceError: it cannot be fetched; the message says what to do without a network.
    """
    if source.set is None or is_here(source):
        return
    print(f"safety-harness: fetching {source.set} ({source}, {download_size(source.set)}), once", file=sys.stderr)
    try:
        resolve_prompts(source)
    except HarnessError as error:
        raise SourceError(
            f"The question set {source.set!r} cannot be fetched. Run `safety-harness fetch` where there is a network "
            f"and set {CACHE_VARIABLE} to a copy of its cache, or name files of your own in the registry. ({error})"
        ) from error
