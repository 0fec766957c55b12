"""Check that every unit that was moved is needed."""

from __future__ import annotations

import pytest


def test_each_unit_is_needed(student, subject, measure, request):
    """Check that the oracle, asked again, turns false without any unit of the patch."""
    measure.about(identity=student.identity())
    if subject is student:
        pytest.skip("the student is gated as it is: there is no patch")
    patch = request.getfixturevalue("patch")
    about = {**patch.model_dump(mode="json"), "share": patch.share}
    measure.about(patch=about, lineage=student.lineage(), moved=subject.moved())
    measure(subject.minimality(patch)).require()
