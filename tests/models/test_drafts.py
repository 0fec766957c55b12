"""Draft tokens come from earlier answers, save passes, and change no token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from safety_harness.models.decoding.drafts import KEPT_ANSWERS_PER_QUESTION, Drafts, accepted
from safety_harness.models.load import load
from safety_harness.models.speedups import Speedups
from tests.builders import in_turns
from tests.models.answering import NEW, QUESTIONS, Answers, Pairs, count_passes, generator, references, tokens


def test_the_newest_answer_that_begins_alike_is_the_draft() -> None:
    """Remember three answers, one of them twice."""
    drafts = Drafts()
    drafts.remember([1], [5, 6, 7])
    drafts.remember([1], [5, 8, 9])
    assert drafts.draft([1], [], 9) == (5, 8, 9)
    assert drafts.draft([1], [5], 1) == (8,)
    assert drafts.draft([1], [5, 6], 9) == (7,)
    drafts.remember([1], [5, 6, 7])
    assert drafts.draft([1], [5], 9) == (6, 7)


def test_no_draft_where_no_answer_goes_on_like_that() -> None:
    """Ask for drafts of unknown questions, other answers, ended answers, and no tokens."""
    drafts = Drafts()
    assert drafts.draft([1], [], 9) == ()
    drafts.remember([1], [5, 6])
    assert drafts.draft([2], [], 9) == ()
    assert drafts.draft([1], [6], 9) == ()
    assert drafts.draft([1], [5, 6], 9) == ()
    assert drafts.draft([1], [], 0) == ()


def test_only_the_last_few_answers_are_kept() -> None:
    """Remember one answer more than are kept."""
    drafts = Drafts()
    for token in range(KEPT_ANSWERS_PER_QUESTION + 1):
        drafts.remember([1], [token, 99])
    assert drafts.draft([1], [0], 9) == ()
    assert all(drafts.draft([1], [token], 9) == (99,) for token in range(1, KEPT_ANSWERS_PER_QUESTION + 1))


@pytest.mark.parametrize(("draft", "count"), [((), 0), ((1, 2), 2), ((1, 3), 1), ((2, 2), 0), ((1, 2, 5), 2)])
def test_accepted(draft: tuple[int, ...], count: int) -> None:
    """Count the tokens of a draft up to the first that the model did not choose."""
    assert accepted(draft, [1, 2, 4, 9]) == count


# Earlier answers that are right up to a point, which differs from row to row.
MISLEADING: dict[str, Callable[[list[int], int], list[int]]] = {
    "short": lambda answer, row: answer[:row],
    "wrong": lambda answer, _row: [(token + 1) % 300 for token in answer],
    "astray": lambda answer, row: [*answer[: row % 5], *(token ^ 1 for token in answer[row % 5 :]), 7, 7, 7],
    "right": lambda answer, _row: answer,
}


def drafts_of(questions: Sequence[Sequence[int]], answers: Answers, kinds: Sequence[str]) -> Drafts:
    """Return drafts made of these answers, misleading in each of these ways, the last one newest."""
    drafts = Drafts()
    for kind in kinds:
        for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            drafts.remember(question, MISLEADING[kind](answer, row))
    return drafts


@pytest.mark.parametrize(("architecture", "batch_size"), in_turns(2, 64))
def test_no_draft_changes_a_token(
    pairs: Pairs, expected: Callable[..., Answers], architecture: str, batch_size: int
) -> None:
    """Mislead the generator in every way alone, and in all ways at once."""
    loaded = load(pairs(architecture, False)[0], "float32")
    whole = expected(architecture)
    encoded = [generator(loaded, 1).encode(question) for question in QUESTIONS]
    every_part = Speedups.for_model(loaded.model)
    for kinds in (*((kind,) for kind in MISLEADING), tuple(MISLEADING)):
        speedups = replace(every_part, drafts=drafts_of(encoded, whole, kinds))
        assert tokens(generator(loaded, batch_size, speedups)) == whole, kinds


def test_drafts_end_where_an_answer_ends(pairs: Pairs, expected: Callable[..., Answers]) -> None:
    """Put an end token within a draft, and set limits that are shorter than the draft."""
    loaded = load(pairs("llama", False)[0], "float32")
    full = expected("llama")
    encoded = [generator(loaded, 1).encode(question) for question in QUESTIONS]
    loaded.model.generation_config.eos_token_id = [full[0][5], full[1][2]]
    ended = references(loaded)
    for new in (1, 3, NEW):
        speedups = replace(Speedups.for_model(loaded.model), drafts=drafts_of(encoded, full, ["right"]))
        assert tokens(generator(loaded, 64, speedups), new=new) == [answer[:new] for answer in ended]


@pytest.mark.parametrize(("dtype", "passes"), [("float32", 1), ("bfloat16", NEW)])
def test_an_answer_given_before_is_read_in_one_pass(
    pairs: Pairs, dtype: str, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ask twice. In bfloat16, where the way of decoding may change an answer, there are no drafts."""
    loaded = load(pairs("llama", False)[0], dtype)
    asked = generator(loaded, 64)
    first = tokens(asked)
    read = count_passes(loaded.model, monkeypatch)
    assert tokens(asked) == first
    assert len(read) == passes
