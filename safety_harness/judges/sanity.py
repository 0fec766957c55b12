"""Find a judge that calls everything one thing."""

from __future__ import annotations

from safety_harness.judges.kept import Kept


def one_sided(judge: Kept) -> str:
    """Return why a judge is none; nothing where it tells refusals from answers."""
    raise NotImplementedError
