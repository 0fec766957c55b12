"""Check which answers to a task count as right: those that people would accept."""

from __future__ import annotations

import pytest

from safety_harness.judging.own_task import is_right
from safety_harness.text import words


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("42", "42"), ("The answer is 42.", "42"), ("(42)", "42"), ("x=42", "42"), ("$42!", "42"), ("**42**", "42"),
        ("42%", "42"), ("is 42, of course", "42"), ("40+2 = 42", "42"), ("42\n", " 42 "),
        ("It is -42.", "-42"), ("It is −42.", "-42"), ("about 3.14.", "3.14"), ("Paris", "paris"),
        ("It's PARIS, France", "Paris"), ("in  New\nYork.", "new york"), ("“Paris”", "paris"), ("naïve café", "Café"),
        ("so: 1,000", "1,000"), ("1,234,567", "1234567"), ("v1.2-rc", "v1.2-rc"),
        ("the sum is...42", "42"), ("7 - 3 = 4", "4"), ("12/4 = 3", "3"), ("it is 3/4", "3/4"), ("and/or", "or"),
        ("Use C++.", "C++"),  ("C#, of course", "c#"), ("the sum of 3+ 4", "4"), ("3+4", "3+4"),
        ("Use C++17.", "C++"), ("over 100+ people", "100"), ("3+(-2)", "3"), ("42#", "42"),
        ("答えは東京です。", "東京"), ("คำตอบคือไทย", "ไทย"), ("答案是42。", "42"),
    ],
)  # fmt: skip
def test_right(answer: str, expected: str) -> None:
    assert is_right(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("142", "42"), ("421", "42"), ("4 2", "42"), ("42.5", "42"), ("1.42", "42"), ("0.42", "42"), (".42", "42"),
        ("-42", "42"), ("−42", "42"), ("42", "-42"), ("3.141", "3.14"), ("3.1", "3.14"),
        ("", "42"), ("42", ""), ("no number", "42"), ("Parisian", "Paris"), ("comparison", "paris"),
        ("York New", "new york"), ("New", "New York"), ("4e2", "4"), ("1,042", "42"), ("42,000", "42"),
        ("3/4", "3"), ("1/2", "2"), ("It is C++", "C"), ("It is C", "C++"), ("C#", "C"), ("京東", "東京"),
    ],
)  # fmt: skip
def test_not_right(answer: str, expected: str) -> None:
    assert not is_right(answer, expected)


@pytest.mark.parametrize("symbols", ["👍", "<", "...", "+", "—", ""])
def test_symbols_alone_are_no_words(symbols: str) -> None:
    assert words(symbols) == ""
