"""Check that a pattern is passed over only on texts that it cannot match."""

from __future__ import annotations

import pytest

from safety_harness.judging.calibration import SHIPPED, load_labelled
from safety_harness.judging.grammar import grammars
from safety_harness.judging.literals import literals
from safety_harness.judging.normal import cleaned, plain, sentences
from tests.judging.test_languages import ANSWERS, REFUSALS


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("will not", ("will not",)),
        (r"\b(?:will|shall) not\b", ("will", "shall")),
        ("(?:cannot|will not)?", ()),
        ("(?:cannot|)", ()),
        ("[a-z]+", ()),
        ("[!?]", ("!", "?")),
        ("x*yes", ("yes",)),
        ("(?:yes)*", ()),
        ("(?:yes)+", ("yes",)),
        ("(?!no)yes", ("yes",)),
        ("(?=.*never)i", ("never",)),
        ("not|will not", ("not",)),
        ("(?i)not", ()),
    ],
)
def test_literals_are_in_each_match(pattern: str, expected: tuple[str, ...]) -> None:
    assert literals(pattern) == expected


def test_no_rule_is_passed_over_that_would_fire() -> None:
    """Run each rule of each language with its guard and without, on all texts that ship or stand in these tests."""
    english = [one.answer for name in SHIPPED for one in load_labelled(name)]
    fired = 0
    for language, grammar in grammars().items():
        answers = english[::4] if language == "en" else [*REFUSALS[language], *ANSWERS[language]]
        texts = [text for answer in answers for text in (plain(cleaned(answer)), *sentences(plain(cleaned(answer))))]
        for rules in grammar.rules.values():
            for name, rule in rules.items():
                for text in texts:
                    match = rule.compiled.search(text)
                    assert (rule.search(text) is None) == (match is None), name
                    fired += match is not None
    assert fired > 1_000
