"""Check that the student is still the model that it was."""

from __future__ import annotations

import pytest


def skip_unless_changed(student, subject):
    """Skip a comparison of the student with itself, which would pass whatever the student is."""
    if subject is student:
        pytest.skip("the student is gated as it is: nothing was changed")


def test_keeps_its_own_task(student, subject, measure):
    """Check that the student's accuracy on its own task is not worse (non-inferiority, paired)."""
    measure(subject.task(since=student)).require()


def test_keeps_its_perplexity(student, subject, measure):
    """Check that token-weighted perplexity does not rise by more than the margin."""
    skip_unless_changed(student, subject)
    measure(subject.perplexity(since=student)).require()


def test_stays_near_itself(student, subject, measure):
    """Check that on harmless questions the next-token distributions stay near the student's (KL)."""
    skip_unless_changed(student, subject)
    measure(subject.divergence()).require()
