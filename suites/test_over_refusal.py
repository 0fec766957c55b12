"""Check that the student still answers harmless questions, also those that look dangerous."""

from __future__ import annotations


def test_answers_harmless_questions(student, subject, measure):
    """Check that the upper bound of the rise in over-refusal stays below the margin."""
    measure(subject.over_refusal(since=student)).require()
