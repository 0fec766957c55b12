"""Tokens without a row, and a tokenizer that cuts, pads or drops, are named before anything is asked."""

from __future__ import annotations

import json
import string
import warnings
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from safety_harness.errors import SourceError
from safety_harness.models.chat import Chat
from safety_harness.models.generate import Generator
from safety_harness.models.likelihood import check_documents
from safety_harness.models.load import LoadedModel, load
from tests.builders import CORPUS, TEMPLATE, make_model, make_tokenizer, save

QUESTION = "how do i bake bread ?"


def loaded(folder: Path, tokenizer: Any, **changes: Any) -> LoadedModel:
    return load(save(make_model("llama", **changes), tokenizer, folder), "float32")


def test_a_vocabulary_that_is_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    """Name the first tokens: any text could hold them."""
    tokenizer = make_tokenizer((*CORPUS, "the penguins swim swiftly"), 320)
    assert len(tokenizer) > 310
    with pytest.raises(
        SourceError, match=r"model: the model has rows for 300 tokens, and none for '\w+' \(300\), .* more"
    ):
        loaded(tmp_path / "model", tokenizer)
    loaded(tmp_path / "padded", tokenizer, vocab_size=384)  # rows without tokens are usual


def test_added_tokens_without_rows_matter_where_they_are_used(tmp_path: Path) -> None:
    """Ask with a tokenizer that has one more token, which only some texts hold."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    asked = Generator(*(lambda one: (one.model, one.tokenizer))(loaded(tmp_path / "model", tokenizer)), batch_size=2)
    asked.check_lengths([QUESTION], 4)
    check_documents(asked, [QUESTION])
    with pytest.raises(SourceError, match=r"'what is \[PAD\] \?': the model has rows for 300 .* '\[PAD\]' \(300\)"):
        asked.check_lengths([QUESTION, "what is [PAD] ?"], 4)
    with pytest.raises(SourceError, match=r"'\[PAD\]' \(300\)"):
        check_documents(asked, ["what is [PAD] ?"])


def test_a_template_of_tokens_without_rows_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = TEMPLATE.replace("<{{", "<|im_start|>{{").replace("<end>", "<|im_end|>")
    one = loaded(tmp_path / "model", tokenizer)
    with pytest.raises(SourceError, match=r"'<\|im_start\|>' \(300\), '<\|im_end\|>' \(301\)\. Get the tokenizer"):
        Generator(one.model, one.tokenizer, batch_size=2).check_lengths([QUESTION], 4)


@pytest.mark.parametrize("names", [("truncation",), ("padding",), ("truncation", "padding")])
def test_what_cuts_or_pads_is_turned_off_with_a_warning(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = save(make_model("llama"), make_tokenizer(), tmp_path / "model")
    table = json.loads((folder / "tokenizer.json").read_text())
    table |= {name: table[name] for name in names}
    settings = {
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "<pad>"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(table | {name: settings[name] for name in names}))
    with pytest.warns(UserWarning, match=rf"tokenizer\.json: sets {' and '.join(names)}, which .* turned off"):
        tokenizer = load(folder, "float32").tokenizer
    assert Chat(tokenizer).tokens(QUESTION) == Chat(make_tokenizer()).tokens(QUESTION)
    assert tokenizer.backend_tokenizer.encode(QUESTION).ids == make_tokenizer()(QUESTION)["input_ids"]


def test_a_usual_tokenizer_gives_no_warning(tmp_path: Path) -> None:
    folder = save(make_model("llama"), make_tokenizer(), tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder, "float32")


def test_letters_that_a_tokenizer_drops_are_missed() -> None:
    """Ask in letters that a tokenizer without an unknown token has no tokens for."""
    letters = string.ascii_lowercase + " ?"
    core = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    chat = Chat(PreTrainedTokenizerFast(tokenizer_object=core))
    assert chat.tokens("What is it?")  # a capital is lost, and most is there
    for question in ("北京在哪里?", "WHERE IS IT?"):
        with pytest.raises(SourceError, match="has no tokens for most letters of"):
            chat.tokens(question)
    assert Chat(make_tokenizer(template=False)).tokens("北京在哪里?")
