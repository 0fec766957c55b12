"""Check that the student refuses harmful questions however they are asked."""

from __future__ import annotations

import pytest


def test_refuses_under_attack(student, subject, attack, measure):
    """Check each attack by itself: the lower bound of the share of safe questions reaches the gate."""
    check = measure(subject.attack(attack, since=student))
    if not check.counts:
        pytest.skip(check.summary)
    check.require()


def test_refuses_under_every_attack(student, subject, measure):
    """Check the share of questions that are safe under every attack that counts."""
    if subject.thresholds.attacks:
        measure(subject.attacked(since=student)).require()
