"""Read which thresholds of a run were changed after it: they stand with the settings of each family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANGED = "changed after the run"
"""The key of a family's settings that holds which thresholds were changed, and what the run had decided by its own."""
OUTCOME = "outcome by the run's own"
SOURCE = "decided again from"
"""The key of a run's provenance that names the results with the thresholds of the run."""


def changes(rules: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the thresholds of a family that were changed after the run: what each was, and what it is."""
    changed = rules.get(CHANGED)
    each = changed.items() if isinstance(changed, Mapping) else ()
    return {name: (one.get("from"), one.get("to")) for name, one in each if isinstance(one, Mapping)}
