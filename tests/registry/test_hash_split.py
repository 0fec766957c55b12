"""Check the split by hash: both sides are disjoint, no question moves, and kinds of questions stay on one side."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from safety_harness.errors import DataError
from safety_harness.gate.statistics import Rate, paired_difference
from safety_harness.registry.hash_split import in_hash_order, require_enough, side_of, without_kinds_of
from safety_harness.registry.prompts import Prompt, PromptSet, prompt_set
from safety_harness.text import question_key

RIVERS = [f"how long is river {number}" for number in range(400)]


def texts(*given: str) -> PromptSet:
    """Make a prompt set of these texts."""
    return prompt_set("set", (Prompt(str(number), text) for number, text in enumerate(given)))


def sides(*given: str) -> tuple[set[str], set[str]]:
    """Return the texts on both sides."""
    return set(side_of(texts(*given), "search").texts), set(side_of(texts(*given), "report").texts)


def test_every_question_is_on_one_side_and_half_on_either() -> None:
    search, report = sides(*RIVERS)
    assert search | report == set(RIVERS)
    assert not search & report
    assert 160 < len(report) < 240


@given(st.lists(st.sampled_from(RIVERS), unique=True, max_size=20), st.sets(st.sampled_from(RIVERS)))
def test_another_question_moves_none(few: list[str], more: set[str]) -> None:
    """Split a set, and that set with others between its questions, in another order."""
    base = RIVERS[:40]
    for before, after in zip(sides(*base), sides(*{*few, *more, *base}), strict=True):
        assert before == after & set(base)


def test_a_spelling_does_not_move_a_question() -> None:
    spelt = [f" “{text.title()}”?" for text in RIVERS]
    for plain, other in zip(sides(*RIVERS), sides(*spelt), strict=True):
        assert set(map(question_key, plain)) == set(map(question_key, other))


def test_sides_of_known_questions_stay_what_they_are() -> None:
    """Hold the split and its order: recorded runs name the hashes of both sides."""
    nine = texts(*RIVERS[:9])
    assert [[prompt.id for prompt in side_of(nine, side)] for side in ("search", "report")] == [
        ["0", "1", "4"],
        ["5", "2", "3", "7", "8", "6"],
    ]


def test_the_first_questions_are_a_sample_of_all() -> None:
    """Put a set in the order of its hashes, which tells nothing of a question's place in its file."""
    ordered = in_hash_order(texts(*RIVERS))
    assert sorted(ordered.texts) == sorted(RIVERS)
    assert 100 < sum(int(prompt.id) for prompt in ordered.first(50)) / 50 < 300
    assert in_hash_order(texts(*reversed(RIVERS))).texts == ordered.texts


def test_a_side_without_a_question_is_refused() -> None:
    with pytest.raises(DataError, match="set: holds 1 questions, none of which falls on the side to"):
        sides("how long is a river")


def test_the_whole_kind_of_a_held_out_question_is_dropped() -> None:
    """Drop what is near to a held-out question, and what is near to what was dropped, but not what is near to none."""
    chain = ["a b c d e f g", "a b c d e f h", "a b c d e i h", "a b c j e i h"]
    kept = without_kinds_of(texts(*chain[1:], "name a river"), texts(chain[0]), 0.7)
    assert kept.texts == ["name a river"]
    assert len(without_kinds_of(texts(*chain[1:], "name a river"), texts(chain[0]), 0.8)) == 4
    with pytest.raises(DataError, match="every question to search on is a near-duplicate of a held-out one"):
        without_kinds_of(texts(*chain[1:]), texts(chain[0]), 0.7)


@pytest.mark.parametrize(("share", "confidence"), [(0.8, 0.95), (0.9, 0.95), (0.5, 0.99), (0.95, 0.9)])
def test_enough_is_what_the_gates_own_bounds_need(share: float, confidence: float) -> None:
    """Hold the smallest number against the interval of a set that went well as a whole, and of one less."""
    fewest = next(n for n in range(1, 999) if Rate(n, n).interval(confidence)[0] >= share)
    held_out = texts(*RIVERS[:fewest])
    require_enough(held_out, 1 - share, confidence, "dsr")
    with pytest.raises(DataError, match=f"{fewest - 1} of its questions are held out. The gate needs {fewest} or more"):
        require_enough(held_out.first(fewest - 1), 1 - share, confidence, "dsr")
    nothing = [False] * fewest
    assert paired_difference(nothing, nothing, confidence).high <= 1 - share + 1e-9


def test_a_threshold_that_no_number_reaches_asks_for_none() -> None:
    require_enough(texts("one"), 0.0, 0.95, "dsr = 1")
