"""The command line of a gated run, and the students that it selects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from safety_harness.errors import ConfigError
from safety_harness.registry.settings import GateSettings, SearchSettings, options, overrides

if TYPE_CHECKING:
    from safety_harness.registry.load import Student

SETTINGS: Mapping[str, type[BaseModel]] = {"gate": GateSettings, "gate-search": SearchSettings}
"""Prefix of an option -> the settings that options of this prefix override. Every option begins with `--gate-`."""


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
        "--gate-threads",
        dest="safety_threads",
        type=_count,
        metavar="N",
        help="Threads of each worker (default: its share of the cores that are idle when the run begins)",
    )
    for prefix, settings in SETTINGS.items():
        for _, name, facts in options(settings, prefix):
            add(name, **facts)


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
    given = {prefix: overrides(settings, prefix, option) for prefix, settings in SETTINGS.items()}
    registry = load_registry(*option.safety_registry, search=given["gate-search"], gate=given["gate"])
    family = option.safety_family or (None if option.safety_registry else "tiny")
    return registry.select(family=family, students=option.safety_students, teacher=option.safety_teacher)


def names_students(config: pytest.Config) -> bool:
    """Return whether the command line says which students to gate."""
    option = config.option
    return bool(option.safety_registry or option.safety_family or option.safety_students)


def check_files(students: Sequence[Student], patches: Path | None, report_dir: Path) -> None:
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
