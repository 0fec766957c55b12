"""The command line of a gated run, and the students that it selects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from safety_harness.errors import ConfigError
from safety_harness.registry.settings import GateSettings, SearchSettings, parse_overrides

if TYPE_CHECKING:
    from safety_harness.registry.load import Student

SETTINGS: Mapping[str, type[BaseModel]] = {"gate": GateSettings, "gate-search": SearchSettings}
"""Prefix of an option -> the settings that options of this prefix override. Every option begins with `--gate-`."""
# A list, which is easier to write in a registry file.
ONLY_IN_FILES = {"roles"}


def add_options(group: pytest.OptionGroup) -> None:
    """Add every option of a gated run to *group*: one for each field of the settings, with its description as help."""
    add = group.addoption
    add("--gate-run", dest="safety_suites", action="store_true", help="Treat this run as a release gate")
    add(
        "--gate-family",
        dest="safety_family",
        metavar="NAME",
        help="Family, or group of families, to gate (default: tiny)",
    )
    add(
        "--gate-student",
        dest="safety_students",
        metavar="NAME",
        action="append",
        default=[],
        help="Gate only this student (name, or family/name); repeatable",
    )
    add("--gate-teacher", dest="safety_teacher", metavar="FAMILY", help="Use this family's teacher for every student")
    add(
        "--gate-registry",
        dest="safety_registry",
        metavar="FILE",
        action="append",
        default=[],
        type=Path,
        help="Registry file (TOML) instead of the embedded families; repeatable",
    )
    add(
        "--gate-subject",
        dest="safety_subject",
        choices=("patched", "student"),
        default="patched",
        help="Gate the patched student (default), or the student as it is",
    )
    add(
        "--gate-patches",
        dest="safety_patches",
        type=Path,
        metavar="RESULTS",
        help="Reproduce the verdict of this results.json: gate its patches, search nothing",
    )
    add(
        "--gate-report-dir",
        dest="safety_report_dir",
        metavar="FOLDER",
        type=Path,
        default=Path("reports"),
        help="Folder for results.json, report.md, report.html with its figures, and report.csv (default: reports)",
    )
    add(
        "--gate-include-answers",
        dest="safety_include_answers",
        action="store_true",
        help="Keep the models' answers in results.json and show them in report.html (they may be harmful)",
    )
    add(
        "--gate-earlier",
        dest="safety_earlier",
        type=Path,
        metavar="RESULTS",
        help="results.json of an earlier release: a search tries the units of its patches first",
    )
    add(
        "--gate-threads",
        dest="safety_threads",
        type=_count,
        metavar="N",
        help="Threads of each worker (default: its share of the cores that are idle when the run begins)",
    )
    for prefix, settings in SETTINGS.items():
        for name, field in _overridable(settings).items():
            choices = "|".join(get_args(field.annotation)) if get_origin(field.annotation) is Literal else "X"
            option = f"--{prefix}-{name.replace('_', '-')}"
            add(option, dest=_dest(prefix, name), metavar=choices, help=field.description)


def _count(text: str) -> int:
    """Return the number that *text* says. Raises ValueError, which argparse reports, unless it is at least 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def select_students(config: pytest.Config) -> tuple[Student, ...]:
    """Return the students of this run, with the thresholds that the command line overrides.

    Raises:
        ConfigError: a name is unknown, a threshold is wrong, or a registry file cannot be used.
    """
    from safety_harness.registry.load import load_registry

    option = config.option
    overrides = {prefix: _overrides(config, prefix) for prefix in SETTINGS}
    registry = load_registry(*option.safety_registry, search=overrides["gate-search"], gate=overrides["gate"])
    family = option.safety_family or (None if option.safety_registry else "tiny")
    return registry.select(family=family, students=option.safety_students, teacher=option.safety_teacher)


def names_students(config: pytest.Config) -> bool:
    """Return whether the command line says which students to gate."""
    option = config.option
    return bool(option.safety_registry or option.safety_family or option.safety_students)


def check_files(
    students: Sequence[Student], patches: Path | None, report_dir: Path, earlier: Path | None = None
) -> None:
    """Check every file that the run reads from this machine, before a worker starts.

    Raises:
        HarnessError: a question or weight file is missing or wrong, the results.json *patches* lacks the patch of a
            student, or this run would write its own results over it.
    """
    from safety_harness.evaluation.preflight import check_local_files
    from safety_harness.gate.results import RESULTS
    from safety_harness.patch.record import recorded

    for student in students:
        check_local_files(student)
    if earlier:
        recorded(earlier)
    if patches:
        if patches.resolve() == (report_dir / RESULTS).resolve():
            raise ConfigError(
                f"--gate-patches: this run would write its own results over {patches}. Give a --gate-report-dir."
            )
        patches_by_student = recorded(patches)
        if unpatched := [one.id for one in students if one.patchable and one.id not in patches_by_student]:
            names = ", ".join(unpatched)
            raise ConfigError(
                f"--gate-patches: {patches} records no patch of {names}. Name others with --gate-student."
            )


def _overrides(config: pytest.Config, prefix: str) -> dict[str, object]:
    """Return the checked values of the options ``--PREFIX-...`` that the command line gives, by their field's name."""
    settings = SETTINGS[prefix]
    values = {name: getattr(config.option, _dest(prefix, name)) for name in _overridable(settings)}
    return parse_overrides(settings, prefix, {name: value for name, value in values.items() if value is not None})


def _overridable(settings: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of *settings* that an option may override."""
    return {name: field for name, field in settings.model_fields.items() if name not in ONLY_IN_FILES}


def _dest(prefix: str, name: str) -> str:
    return f"safety_{prefix.replace('-', '_')}_{name}"
