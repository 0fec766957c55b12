"""Tell which sets a model can read, by tokenizers of every kind, without a network."""

from __future__ import annotations

import pytest

from safety_harness.errors import DataError
from safety_harness.registry.load import embedded_files
from safety_harness.registry.named import Kind, sets
from safety_harness.registry.prompts import Prompt, prompt_set
from safety_harness.registry.readable import default_set, readable_sets, require_readable

TINY = embedded_files()[0].parent / "tiny" / "models"
ASKED: tuple[Kind, ...] = ("harmful", "harmless", "text")


class Words:
    """A tokenizer of whole words, in the manner of transformers: 0 is unknown, and stands before every text as well."""

    unk_token_id = 0
    name_or_path = "words"

    def __init__(self, *known: str) -> None:
        self.known = known

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        tokens = [1 + self.known.index(word) if word in self.known else 0 for word in text.split()]
        return {"input_ids": [0, *tokens] if add_special_tokens else tokens}


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma"])
def test_tiny_models_read_their_own_world_alone(family: str) -> None:
    """Their tokenizers know every byte, so English is known to them in pieces only."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY / family / "teacher")
    for kind in ASKED:
        assert readable_sets(kind, tokenizer) == ["tiny"]
        assert default_set(kind, tokenizer) == "tiny"


def test_a_model_of_english_begins_with_the_default() -> None:
    def words(text: str) -> list[int]:
        return [len(word) for word in text.split()]

    for kind, first in zip(ASKED, ("advbench", "everyday", "prose"), strict=True):
        assert default_set(kind, words) == first
        assert readable_sets(kind, words, unknown=999) == list(sets(kind))


def test_unknown_words_make_a_set_unreadable() -> None:
    """Give a function that knows no word with an e, and its unknown token."""

    def some(text: str) -> list[int]:
        return [0 if "e" in word else 1 for word in text.split()]

    assert readable_sets("harmful", some, unknown=0) == []
    assert readable_sets("harmful", some) == list(sets("harmful"))


def test_a_model_of_letters_gets_the_first_set() -> None:
    assert readable_sets("harmful", lambda text: list(map(ord, text))) == []
    assert default_set("harmful", lambda text: list(map(ord, text))) == "advbench"


def test_a_default_is_never_a_set_that_the_user_has_to_get() -> None:
    for kind in ASKED:
        name = default_set(kind, lambda text: [0] * len(text.split()), unknown=0)
        assert sets(kind)[name].report or "pypi" in sets(kind)[name].source


def test_questions_of_unknown_words_are_not_asked() -> None:
    """Refuse a set of which more than one token in fifty is unknown. What stands around a text does not count."""
    known = prompt_set("known.txt", [Prompt(str(at), "how do bees fly") for at in range(12)])
    require_readable(known, Words("how", "do", "bees", "fly"))
    hole = prompt_set("hole.txt", [*known.prompts, Prompt("x", "how do whales fly")])
    require_readable(hole, Words("how", "do", "bees", "fly"))
    with pytest.raises(DataError, match=r"known\.txt: 25% of its tokens are unknown to the tokenizer of words"):
        require_readable(known, Words("how", "do", "fly"))


def test_a_tokenizer_without_an_unknown_token_knows_all() -> None:
    tokenizer = Words()
    tokenizer.unk_token_id = None  # type: ignore[assignment]
    require_readable(prompt_set("s", [Prompt("1", "how do bees fly")]), tokenizer)
