"""Put the options of a gated run on pytest's command line, and select the students that they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safety_harness.registry.options import DEFAULT_REGISTRY, OPTIONS, PREFIX, SEARCH, Option, overrides

if TYPE_CHECKING:
    import pytest

    from safety_harness.registry.load import Student


def add_options(group: pytest.OptionGroup, options: Sequence[Option] = OPTIONS) -> None:
    """Add *options* to *group*, each behind the prefix."""
    for option in options:
        group.addoption(f"{PREFIX}{option.name}", dest=option.dest, help=option.help, **option.about)


def select_students(config: pytest.Config) -> tuple[Student, ...]:
    """Return the students of this run, with the thresholds that the command line overrides.

    Raises:
        ConfigError: a name is unknown, a threshold is wrong, or a registry file cannot be used. Or nothing says whom
            the installed suites are to gate.
    """
    from safety_harness.errors import ConfigError
    from safety_harness.evaluation.attacks import with_attacks
    from safety_harness.registry.judged_by import judged_by
    from safety_harness.registry.load import open_registry

    option = config.option
    registry, option.safety_registry = open_registry(
        option.safety_registry,
        option.safety_family,
        config.invocation_params.dir,
        search=overrides(SEARCH, option),
        gate=overrides("", option),
    )
    if option.pyargs and not (option.safety_registry or option.safety_family or option.safety_students):
        # In the wrong folder a release would be green by students that are nobody's.
        raise ConfigError(
            f"No {DEFAULT_REGISTRY} in {config.invocation_params.dir}. Write one with `safety-harness init`, name "
            "yours with --gate-registry, or try the embedded students with --gate-family tiny."
        )
    family = option.safety_family or (None if option.safety_registry else "tiny")
    students = with_attacks(
        registry.select(family=family, students=option.safety_students, teacher=option.safety_teacher)
    )
    return judged_by(students, option.safety_judge) if option.safety_judge else students


def registry_line(config: pytest.Config, students: Sequence[Student]) -> str:
    """Return what a run says of itself before it begins: which registry it read, and whom it gates."""
    option = config.option
    read = ", ".join(map(str, option.safety_registry)) or f"the embedded families (no {DEFAULT_REGISTRY} is used)"
    named = {kind: ", ".join(each.id for each in found) for kind, found in by_subject(config, students).items()}
    engines = dict.fromkeys(
        f"answers by {student.family.backend}" for student in students if student.family.backend and student.models
    )
    return "; ".join([f"gate: {read}", *(f"{kind}: {names}" for kind, names in named.items()), *engines])


def by_subject(config: pytest.Config, students: Sequence[Student]) -> dict[str, list[Student]]:
    """Return *students* by what of them is gated: patched, as it is, or served."""
    from safety_harness.gate.decide import subject_to_gate

    found: dict[str, list[Student]] = {}
    for student in students:
        found.setdefault(subject_to_gate(student, config.option.safety_subject), []).append(student)
    return found


def names_students(config: pytest.Config) -> bool:
    """Return whether the command line says which students to gate."""
    option = config.option
    return bool(option.safety_registry or option.safety_family or option.safety_students)


def settle_results(config: pytest.Config) -> None:
    """Name the results whose patches are used by where they stay: this run will be the latest itself."""
    from safety_harness.gate.runs import finished

    option = config.option
    option.safety_patches, option.safety_earlier = (
        results and finished(results) for results in (option.safety_patches, option.safety_earlier)
    )


def check_files(config: pytest.Config, students: Sequence[Student]) -> None:
    """Check every file that the run reads from this machine, before a worker starts.

    Raises:
        HarnessError: a question or weight file is missing or wrong, the cache of a search cannot be written, or the
            results.json of ``--gate-patches`` lacks the patch of a student, or is not needed. Or a row of the labels
            is wrong. Or ``--gate-tamper`` is given, and the weights of a student cannot be tuned.
    """
    from safety_harness.errors import ConfigError
    from safety_harness.evaluation.preflight import check_judges, check_local_files, check_tamper
    from safety_harness.files import cache_dir, try_to_write
    from safety_harness.gate.decide import subject_to_gate
    from safety_harness.gate.labels import read_labels
    from safety_harness.patch.record import recorded
    from safety_harness.registry.judged_by import require_one_judge

    require_one_judge(students)
    tampered = config.option.safety_tamper
    for student in students:
        check_local_files(student)
        if tampered:
            check_tamper(student)
    check_judges(students, tampered=tampered)
    for student in students:
        backend, subject = student.family.backend, subject_to_gate(student, config.option.safety_subject)
        if backend and backend.url and subject == "patched":
            raise ConfigError(
                f"{student.id}: is gated patched, and the engine at {backend.url} has one model. In `backend`, give "
                "`command` instead of `url`, so that an engine is started for each, or gate it as it is."
            )
    patches, earlier = config.option.safety_patches, config.option.safety_earlier
    if config.option.safety_labels:
        read_labels(config.option.safety_labels)
    if not patches and any(subject_to_gate(student, config.option.safety_subject) == "patched" for student in students):
        try_to_write(cache_dir() / "patch")  # what a search finds is kept there
    if earlier:
        recorded(earlier)
    if patches:
        patches_by_student = recorded(patches)
        kinds = by_subject(config, students)
        if "patched" not in kinds:
            raise ConfigError(
                f"--gate-patches: {patches} is of no use: {students[0].id} is gated {next(iter(kinds))}, and no "
                "student of this run with a patch. Leave the option out, or name the teacher in the registry."
            )
        if unpatched := [one.id for one in kinds["patched"] if one.id not in patches_by_student]:
            names = ", ".join(unpatched)
            raise ConfigError(
                f"--gate-patches: {patches} records no patch of {names}. Name others with --gate-student."
            )
