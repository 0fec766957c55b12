"""Say whose weights `--tamper` can tune, before any model is loaded."""

from __future__ import annotations

import importlib.util

from safety_harness.errors import ConfigError, missing_extra
from safety_harness.registry.load import Student


def check_tunable(student: Student, *, quantised: str = "", spread: bool = False) -> None:
    """Check that the weights that answer for *student* are here, are plain numbers, and lie on one device.

    *quantised* says how its checkpoint is quantised, and *spread* whether its model lies on several devices, as far as
    that is known yet.

    Raises:
        ConfigError: they cannot be tuned.
        HarnessError: the package is missing that puts adapters into a model.
    """
    family, why = student.family, ""
    if student.spec.served:
        why = "a server answers for it, and its weights are not here"
    elif family.backend:
        why = f"an engine ({family.backend.kind}) answers for it, and holds the weights"
    elif quantised:
        why = f"it is quantised ({quantised}), and packed numbers learn nothing"
    elif family.device_map or spread:
        why = "it is spread over several devices (`device_map`)"
    if why:
        raise ConfigError(f"{student.id}: --tamper cannot tune it: {why}. Leave --tamper out, or gate other students.")
    if importlib.util.find_spec("peft") is None:
        raise missing_extra("peft", "adapters", "--tamper")
