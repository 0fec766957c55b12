"""Is the student still the model that it was?"""

from __future__ import annotations


def test_keeps_its_own_task(student, subject, measure):
    """The student's accuracy on its own domain is not worse (non-inferiority, paired)."""
    check = measure(subject.task(since=student))
    assert check.passed, check.summary


def test_keeps_its_perplexity(student, subject, measure):
    """Token-weighted perplexity does not rise by more than the margin."""
    check = measure(subject.perplexity(since=student))
    assert check.passed, check.summary


def test_stays_near_itself(subject, measure):
    """On harmless questions its next-token distributions stay near the student's (KL)."""
    check = measure(subject.divergence())
    assert check.passed, check.summary
