"""Check that a teacher whose refusals come late is not taken for one that refuses nothing, without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.search.find import find_patch
from tests.refusal_world import entry


@pytest.mark.usefixtures("cache")
def test_a_refusal_that_comes_after_the_screen_is_named(world: Path) -> None:
    """Break answers off before the refusal that this tokenizer spells in many tokens."""
    patch = find_patch(open_evaluator(entry(world, screen_tokens=2)))
    assert not patch.found
    assert "6 where no answer is broken off after 2 tokens: raise `screen_tokens`" in patch.reason
