"""A screen cuts off some answers early, and changes no other answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from safety_harness.models.decoding.drafts import Drafts
from safety_harness.models.generate import Screen
from safety_harness.models.load import load
from tests.builders import in_turns
from tests.models.answering import NEW, QUESTIONS, Answers, Pairs, generator, tokens


def goes_on(text: str, _begun: str = "") -> bool:
    """Decide by an answer's tokens alone."""
    return sum(json.loads(text)) % 2 == 0


@pytest.mark.parametrize(("architecture", "batch_size"), in_turns(1, 3, 64))
def test_a_screen_cuts_off_what_does_not_go_on(
    pairs: Pairs, expected: Callable[..., Answers], architecture: str, batch_size: int
) -> None:
    """Check cut-off and whole answers, both unknown and known from drafts."""
    loaded = load(pairs(architecture, False)[0], "float32")
    whole = expected(architecture)
    cut_off = 0
    for cut in (1, 3, NEW - 1):
        screened = [
            answer if len(answer) < cut or goes_on(json.dumps(answer[:cut])) else answer[:cut] for answer in whole
        ]
        asked = generator(loaded, batch_size)
        for _ in ("unknown", "known"):
            assert tokens(asked, screen=Screen(cut, goes_on)) == screened
        assert tokens(asked) == whole
        cut_off += sum(len(short) < len(answer) for short, answer in zip(screened, whole, strict=True))
    assert cut_off


def test_a_batch_is_given_up_beyond_a_number_of_cut_offs(pairs: Pairs, expected: Callable[..., Answers]) -> None:
    """Allow as many cut-off answers as there are, then one fewer: all answers then stop at the screen."""
    asked = generator(load(pairs("llama", False)[0], "float32"), 64)
    whole = expected("llama")

    def screened(most: int | None) -> Answers:
        asked.speedups = replace(asked.speedups, drafts=Drafts())  # so that all rows reach the screen in one pass
        return tokens(asked, screen=Screen(3, goes_on, most))

    unlimited = screened(None)
    cut_off = sum(len(short) < len(answer) for short, answer in zip(unlimited, whole, strict=True))
    assert 1 < cut_off < len(QUESTIONS)
    assert screened(cut_off) == unlimited
    given_up = screened(cut_off - 1)
    assert given_up == [answer[:3] for answer in whole]
    assert given_up != unlimited
