"""Check that the student keeps to every list of its family: questions that it must refuse, or must answer."""

from __future__ import annotations


def test_keeps_to_every_list(student, subject, measure):
    """Check each list by itself. What is missed on one is no reason to leave out another."""
    checks = [measure(check) for check in subject.must(since=student)]
    for check in checks:
        check.require()
