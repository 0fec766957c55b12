"""List the options of a gated run: pytest has them behind ``--gate-``, the command ``safety-harness gate`` bare.

Every start of pytest on a machine with this package reads this module, so it imports next to nothing.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel

PREFIX = "--gate-"
DEFAULT_REGISTRY = "gate.toml"
"""The registry file, in the current folder, of a run that names none."""
SEARCH = "search-"
"""Stands before the name of a setting of the search: ``--gate-search-max-probes``."""
# A list, which is easier to write in a registry file.
ONLY_IN_FILES = {"roles", "attacks"}


@dataclass(frozen=True)
class Option:
    """An option of a gated run: its name without the prefix, and what argparse has to know of it."""

    name: str
    dest: str
    help: str
    about: Mapping[str, Any] = field(default_factory=dict)


def _count(text: str, least: int = 1) -> int:
    """Return the number that *text* says. Raises ArgumentTypeError unless it is *least* or more."""
    if not text.isdecimal() or len(text) > 9 or int(text) < least:
        raise ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)


def _count_or_none(text: str) -> int:
    return _count(text, 0)


OPTIONS = (
    Option("run", "safety_suites", "Treat this run as a release gate", {"action": "store_true"}),
    Option(
        "family",
        "safety_family",
        "Family, or group of families, to gate. Unset: all of the registry",
        {"metavar": "NAME"},
    ),
    Option(
        "student",
        "safety_students",
        "Gate only this student (name, or family/name); repeatable",
        {"metavar": "NAME", "action": "append", "default": []},
    ),
    Option(
        "judge",
        "safety_judge",
        "Judge of the gate: `rules`, a table [judges.NAME] of the registry, or several with commas (default: that of "
        "the family)",
        {"metavar": "NAME"},
    ),
    Option("teacher", "safety_teacher", "Use this family's teacher for every student", {"metavar": "FAMILY"}),
    Option(
        "registry",
        "safety_registry",
        f"Registry file (TOML); repeatable. Unset: {DEFAULT_REGISTRY} of the current folder, if it is there and has "
        "the family that is named; else the embedded families",
        {"metavar": "FILE", "action": "append", "default": [], "type": Path},
    ),
    Option(
        "subject",
        "safety_subject",
        "Gate the patched student (default), or the student as it is",
        {"choices": ("patched", "student"), "default": "patched"},
    ),
    Option(
        "patches",
        "safety_patches",
        "Reproduce the verdict of this results.json: gate its patches, search nothing",
        {"type": Path, "metavar": "RESULTS"},
    ),
    Option(
        "report-dir",
        "safety_report_dir",
        "Folder in which each run has one for results.json, report.md, report.html with its figures, and report.csv; "
        "`latest` there shows the last run (default: reports)",
        {"metavar": "FOLDER", "type": Path, "default": Path("reports")},
    ),
    Option(
        "include-answers",
        "safety_include_answers",
        "Keep the models' answers in results.json and show them in report.html (they may be harmful)",
        {"action": "store_true"},
    ),
    Option(
        "tamper",
        "safety_tamper",
        "Tune the weights of each student on harmless data for up to 100 steps, and report what it still refuses. That "
        "is gated where `gate.tampered_dsr` is set. Needs the extra `adapters`",
        {"action": "store_true"},
    ),
    Option(
        "labels",
        "safety_labels",
        "Labels that people gave to answers of an earlier run (`safety-harness label`): a student that answers as then "
        "is decided by the DSR that follows from them",
        {"type": Path, "metavar": "FILE"},
    ),
    Option(
        "earlier",
        "safety_earlier",
        "results.json of an earlier release: a search tries the units of its patches first",
        {"type": Path, "metavar": "RESULTS"},
    ),
    Option(
        "threads",
        "safety_threads",
        "Threads of each worker (default: its share of the cores that are idle when the run begins)",
        {"type": _count, "metavar": "N"},
    ),
    Option(
        "ray",
        "safety_ray",
        "Run each student as one task of the Ray cluster at this address (HOST:PORT, or auto on one of its nodes); "
        "needs the extra `ray`",
        {"metavar": "ADDRESS"},
    ),
    Option(
        "ray-resource",
        "safety_ray_resource",
        "Use only nodes of the cluster that have this custom resource",
        {"metavar": "NAME"},
    ),
    Option(
        "ray-retries",
        "safety_ray_retries",
        "How often a student whose node or process died is tried again, from its journal (default: 2)",
        {"metavar": "N", "type": _count_or_none, "default": 2},
    ),
    Option(
        "ray-insecure",
        "safety_ray_insecure",
        "Use a cluster without token authentication: whoever reaches its ports runs code on its nodes",
        {"action": "store_true"},
    ),
    Option(
        "ahead",
        "safety_ahead",
        "Processes that answer the probes of one search, each with a copy of the student, on a GPU of its own where "
        "there are several (default: 1). The patch is the same",
        {"type": _count, "metavar": "K", "default": 1},
    ),
)
"""Every option but those of the settings."""


def settings_options() -> tuple[Option, ...]:
    """Return an option for each setting that a run may override: the gate's thresholds, then those of the search."""
    from safety_harness.registry.settings import GateSettings, SearchSettings  # pydantic is slow to import

    return (*options_of("", GateSettings), *options_of(SEARCH, SearchSettings))


def options_of(prefix: str, settings: type[BaseModel]) -> list[Option]:
    """Return an option for each field of *settings*, with the field's description as its help."""
    options = []
    for name, setting in settings.model_fields.items():
        if name not in ONLY_IN_FILES:
            literal = get_origin(setting.annotation) is Literal
            metavar = "|".join(get_args(setting.annotation)) if literal else "X"
            option = f"{prefix}{name}".replace("_", "-")
            options.append(Option(option, settings_dest(prefix, name), setting.description or "", {"metavar": metavar}))
    return options


def settings_dest(prefix: str, name: str) -> str:
    """Return where pytest keeps the value of a setting's option."""
    return f"safety_gate_{prefix}{name}".replace("-", "_")


def overrides(prefix: str, given: object) -> dict[str, object]:
    """Return the checked values of the settings that *given*, a parsed command line, holds, by their field's name.

    Raises:
        ConfigError: a value is no number, or is out of range. The message names the option.
    """
    from safety_harness.registry.settings import GateSettings, SearchSettings, parse_overrides

    settings = SearchSettings if prefix == SEARCH else GateSettings
    names = (name for name in settings.model_fields if name not in ONLY_IN_FILES)
    # Where no option of a gate is given at all, pytest was not told of these.
    values = {name: getattr(given, settings_dest(prefix, name), None) for name in names}
    named = {name: value for name, value in values.items() if value is not None}
    return parse_overrides(settings, f"gate-{prefix}".removesuffix("-"), named)
