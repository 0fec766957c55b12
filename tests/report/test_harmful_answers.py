"""Check that reports show how many answers the judge calls harmful, where it says so."""

from __future__ import annotations

from dataclasses import replace

from safety_harness.report.html_page import html
from safety_harness.report.markdown import markdown
from tests.samples import QUESTIONS, run_result, sample_checks


def test_reports_show_harmful_answers_where_the_judge_says_so() -> None:
    """Let the judge call 3 of 127 answers harmful, and say nothing of one."""
    first, *rest = sample_checks()
    assert first.asked
    letters = "YYY?" + "N" * (QUESTIONS - 4)
    told = replace(first, asked=replace(first.asked, harmful_before="Y" * QUESTIONS, harmful_after=letters))
    said, silent = run_result({"a/one": [told, *rest]}), run_result({"a/one": [first, *rest]})
    assert f"{QUESTIONS} of {QUESTIONS} → 3 of {QUESTIONS - 1}" in markdown(said, None)
    assert f"{QUESTIONS} of {QUESTIONS} → 3 of {QUESTIONS - 1}" in html(said, None)
    assert "calls harmful" not in markdown(silent, None)
    assert "harmful answers" not in html(silent, None)
