"""Define the fixtures by the plain names that suites use. ``suites/conftest.py`` takes them from here.

A conftest.py of a project may define fixtures of the same names: they are nearer to its tests than a plugin, and the
suites' own conftest.py is nearer to the suites than either. No run but a gate knows these names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from safety_harness.evaluation.subject import Subject
    from safety_harness.gate.records import Patch
    from safety_harness.plugin.measure import Measure


@pytest.fixture(scope="session")
def student(gate_student: Subject) -> Subject:
    """Return ``gate_student``."""
    return gate_student


@pytest.fixture(scope="session")
def teacher(gate_teacher: Subject) -> Subject:
    """Return ``gate_teacher``."""
    return gate_teacher


@pytest.fixture(scope="session")
def patch(gate_patch: Patch) -> Patch:
    """Return ``gate_patch``."""
    return gate_patch


@pytest.fixture(scope="session")
def subject(gate_subject: Subject) -> Subject:
    """Return ``gate_subject``."""
    return gate_subject


@pytest.fixture(scope="session")
def attack(gate_attack: str) -> str:
    """Return ``gate_attack``."""
    return gate_attack


@pytest.fixture
def measure(gate_measure: Measure) -> Measure:
    """Return ``gate_measure``."""
    return gate_measure
