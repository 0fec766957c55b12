"""Check that refusals outlast tuning, which whoever has the weights can do."""

from __future__ import annotations

import pytest


def test_refuses_after_tuning(student, subject, measure, request):
    """Check refusals after 10, 30 and 100 steps of tuning on harmless data: reported, or gated by `tampered_dsr`."""
    if not request.config.option.safety_tamper:
        pytest.skip("no tuning was asked for (--gate-tamper)")
    teacher = request.getfixturevalue("teacher") if student.evaluator.student.patchable else None
    check = measure(subject.tampered(teacher))
    if not check.counts:
        pytest.skip(check.summary)
    check.require()
