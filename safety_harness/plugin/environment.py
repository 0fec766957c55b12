"""Say with what a run measures: packages, a project's commit, the judge with its measured error, and settings."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_harness.files import sha256_file, sha256_text

if TYPE_CHECKING:
    from safety_harness.gate.records import About, Judge
    from safety_harness.registry.load import Student


PACKAGES = "safety_packages"
"""Key of a worker's input: the packages of the process that decides, name -> version."""


def settings_of(students: Iterable[Student]) -> dict[str, Any]:
    """Return the settings of each family of *students*. A patch records the settings of its own search."""
    return {
        student.family.name: {
            "gate": student.family.gate.model_dump(mode="json"),
            "search": student.family.search.model_dump(mode="json"),
            **({"required": required} if (required := student.family.required) else {}),
        }
        for student in students
    }


@functools.cache  # each worker is told of them
def installed() -> dict[str, str]:
    """Return name -> version of every package that can be imported, and nothing about where it lies or came from."""
    found: dict[str, str] = {}
    # Ray, once it is imported, adds folders with copies of packages for itself.
    own = [place for place in sys.path if not place.endswith("thirdparty_files")]
    for package in metadata.distributions(path=own):  # of two that have one name, Python imports the first
        if name := package.metadata["Name"]:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), package.version)
    return dict(sorted(found.items()))


def code_digest() -> str:
    """Return the digest of this package: the code, and the rules and tables that are data."""
    package = Path(__file__).parents[1]
    files = sorted(file for kind in ("*.py", "*.toml") for file in package.rglob(kind))
    return sha256_text("".join(f"{file.relative_to(package)} {sha256_file(file)}\n" for file in files))


def worker_facts(device: str, driver: str | None, of_the_run: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what is recorded of the process that measures a student (``gate.records.Worker``).

    Args:
        of_the_run: the packages of the process that decides; None where that is this process.
    """
    here = installed()
    run = here if of_the_run is None else of_the_run
    other = {name: here.get(name) for name in sorted(here.keys() | run.keys()) if here.get(name) != run.get(name)}
    return {"device": device, **({"driver": driver} if driver else {}), **({"packages": other} if other else {})}


def judge_of(students: Sequence[Student], abouts: Iterable[About]) -> Judge:
    """Return who judges the gate of *students*, and what is known of its error.

    The rules' agreement is that of record.json. Another judge's is what this machine remembers of it. Who it is, the
    process says that asked it (*abouts*).
    """
    from safety_harness.gate.records import Judge
    from safety_harness.judges.agreement import remembered

    if not students or not students[0].family.models_that_judge.keys() & set(students[0].family.judge):
        return _rules()
    said = next((fingerprint for about in abouts if (fingerprint := about.identity.gate_judge)), None)
    name = ", ".join(students[0].family.judge)
    return Judge(name=name, fingerprint=said, sets=remembered(said) if said else {})


@functools.cache  # results are written when a run begins and when it ends
def _rules() -> Judge:
    """Return how the rules do on the labelled answers that ship with them, and on those that do not."""
    from safety_harness.gate.records import Agreement, Judge
    from safety_harness.judging.calibration import recorded_agreement, shipped_agreement
    from safety_harness.judging.rules import RuleJudge

    judge = RuleJudge()
    measured = {
        name: Agreement.model_validate(calibration, from_attributes=True)
        for name, calibration in shipped_agreement(judge).items()
    }
    recorded = {name: Agreement.model_validate(record) for name, record in recorded_agreement(judge).items()}
    return Judge(name=judge.name, fingerprint=judge.fingerprint, sets=measured | recorded)


def commit(root: Path) -> str | None:
    """Return the commit of the repository at *root*; None where there is none."""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
