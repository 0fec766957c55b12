"""What a question was answered before, as a guess at what comes next."""

from __future__ import annotations

from safety_harness.models.decoding.drafts import KEPT, Drafts


def test_the_newest_answer_that_begins_so_is_the_guess() -> None:
    drafts = Drafts()
    drafts.remember([1], [5, 6, 7])
    drafts.remember([1], [5, 8, 9])
    assert drafts.guess([1], [], 9) == (5, 8, 9)
    assert drafts.guess([1], [5], 1) == (8,)
    assert drafts.guess([1], [5, 6], 9) == (7,)
    drafts.remember([1], [5, 6, 7])
    assert drafts.guess([1], [5], 9) == (6, 7)


def test_no_guess_where_nothing_goes_on_so() -> None:
    drafts = Drafts()
    assert drafts.guess([1], [], 9) == ()
    drafts.remember([1], [5, 6])
    assert drafts.guess([2], [], 9) == ()
    assert drafts.guess([1], [6], 9) == ()
    assert drafts.guess([1], [5, 6], 9) == ()
    assert drafts.guess([1], [], 0) == ()


def test_only_the_last_few_are_kept() -> None:
    drafts = Drafts()
    for token in range(KEPT + 1):
        drafts.remember([1], [token, 99])
    assert drafts.guess([1], [0], 9) == ()
    assert all(drafts.guess([1], [token], 9) == (99,) for token in range(1, KEPT + 1))
