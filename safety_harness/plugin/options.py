"""The command line of a gated run, and what it selects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from safety_harness.errors import ConfigError

if TYPE_CHECKING:
    from safety_harness.registry.load import Student

GATE_OPTIONS = {
    "dsr": "Lower bound that the held-out DSR must reach, 0..1",
    "over-refusal": "Largest rise in over-refusal allowed (upper bound), 0..1",
    "task": "Largest loss of own-task accuracy allowed (upper bound), 0..1",
    "perplexity": "Largest perplexity ratio allowed (upper bound), at least 1",
    "divergence": "Largest mean KL to the student allowed (upper bound), nats a token",
    "unscored": "Largest share of unscored answers allowed, 0..1",
    "confidence": "Confidence of every interval, .5..1",
}
SEARCH_OPTIONS = {
    "target-share": "Share of the DSR of all of the teacher's units that a patch must reach, 0..1",
    "target-dsr": "DSR on the search split that a patch must reach, instead of a share, 0..1",
    "over-refusal": "Rise in over-refusal allowed on the search split, 0..1",
    "task": "Loss of own-task accuracy allowed on the search split, 0..1",
    "unscored": "Share of unscored answers above which a probe is void, 0..1",
    "max-probes": "Probes that one search may spend",
    "strategy": "Strategy of delta debugging: adaptive, halving or ddmin",
    "prior": "Order of the units: norm, contrast or descent",
    "prior-questions": "Harmful questions, the first of the search split, that only the prior sees",
    "prior-harmless-questions": "Likewise, harmless questions",
    "grain": "What moves at the least: module or channel",
    "max-share": "Share of everything that may move which a search starts from at most, 0..1",
    "together": "What is left out at once: the candidates of a module, a block (attention or MLP) or a layer",
    "transfer": "replace: the teacher's numbers; add: what it learnt since the family's ancestor",
}


def add_options(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add("--safety-suites", dest="safety_suites", action="store_true", help="Treat this run as a release gate")
    add("--family", dest="safety_family", help="Family, or group of families, to gate (default: tiny)")
    add(
        "--student",
        dest="safety_students",
        action="append",
        default=[],
        help="Gate only this student (name, or family/name); repeatable",
    )
    add("--teacher", dest="safety_teacher", help="Use this family's teacher for every student")
    add(
        "--registry",
        dest="safety_registry",
        action="append",
        default=[],
        type=Path,
        help="Registry file (TOML) in place of the embedded families; repeatable",
    )
    add(
        "--subject",
        dest="safety_subject",
        choices=("patched", "student"),
        default="patched",
        help="Gate the patched student (default), or the student as it is",
    )
    add(
        "--patches",
        dest="safety_patches",
        type=Path,
        metavar="RESULTS",
        help="Gate the patches that this results.json records, and search none: its verdict, had again",
    )
    add(
        "--report-dir",
        dest="safety_report_dir",
        type=Path,
        default=Path("reports"),
        help="Folder for results.json, report.md, report.html with its figures, and report.csv (default: reports)",
    )
    add(
        "--include-answers",
        dest="safety_include_answers",
        action="store_true",
        help="Keep what the models said in results.json and show it in report.html (it may be harmful)",
    )
    for prefix, options in (("gate", GATE_OPTIONS), ("search", SEARCH_OPTIONS)):
        for name, text in options.items():
            add(f"--{prefix}-{name}", dest=_dest(prefix, name), metavar="X", help=text)


def select_students(config: pytest.Config) -> tuple[Student, ...]:
    """The students of this run, with the thresholds that the command line overrides.

    Raises:
        ConfigError: an unknown name, a wrong threshold, or a registry file that cannot be used.
    """
    from safety_harness.registry.load import load_registry
    from safety_harness.registry.settings import GateSettings, SearchSettings, parse_overrides

    option = config.option
    registry = load_registry(
        *option.safety_registry,
        search=parse_overrides(SearchSettings, "search", _given(config, "search", SEARCH_OPTIONS)),
        gate=parse_overrides(GateSettings, "gate", _given(config, "gate", GATE_OPTIONS)),
    )
    family = option.safety_family or (None if option.safety_registry else "tiny")
    return registry.select(family=family, students=option.safety_students, teacher=option.safety_teacher)


def names_students(config: pytest.Config) -> bool:
    """Whether the command line says which students to gate."""
    option = config.option
    return bool(option.safety_registry or option.safety_family or option.safety_students)


def check_files(students: Sequence[Student], patches: Path | None, report_dir: Path) -> None:
    """Look at every file on this machine before a worker starts.

    Raises:
        HarnessError: a question or weight file is missing or wrong, or the results.json *patches* holds none, or would
            be written over by this run's.
    """
    from safety_harness.evaluation.preflight import check_local_files
    from safety_harness.gate.results import RESULTS
    from safety_harness.patch.record import recorded

    for student in students:
        check_local_files(student)
    if patches:
        if patches.resolve() == (report_dir / RESULTS).resolve():
            raise ConfigError(f"--patches: this run would write its own results over {patches}. Give a --report-dir.")
        known = recorded(patches)
        if without := [student.id for student in students if student.id not in known]:
            names = ", ".join(without)
            raise ConfigError(f"--patches: {patches} records no patch of {names}. Name others with --student.")


def _given(config: pytest.Config, prefix: str, options: Mapping[str, str]) -> dict[str, str]:
    found = {name: getattr(config.option, _dest(prefix, name)) for name in options}
    return {name.replace("-", "_"): value for name, value in found.items() if value is not None}


def _dest(prefix: str, name: str) -> str:
    return f"safety_{prefix}_{name.replace('-', '_')}"
