"""How a question is put: the same on any day, and what the template itself says of the answer."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from safety_harness.chat import DAY, Chat
from safety_harness.errors import SourceError

WORDS = ["<unk>", "<eos>", "<turn>", "</turn>", "ask", "?", ".", "<think>", "\n"]
TURNS = (
    "{% for m in messages %}<turn>{{ m['content'] }}</turn>{% endfor %}{% if add_generation_prompt %}<turn>{% endif %}"
)


def tokenizer(template: Any) -> Any:
    plain = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    special = {"eos_token": "<eos>", "unk_token": "<unk>", "additional_special_tokens": [*WORDS[2:5], WORDS[7]]}
    found = PreTrainedTokenizerFast(tokenizer_object=plain, **special)
    found.chat_template = template
    return found


def said(chat: Chat, question: str = "?") -> list[str]:
    return [WORDS[token] for token in chat.tokens(question)]


def test_a_question_is_put_by_the_template_or_as_it_is() -> None:
    assert said(Chat(tokenizer(TURNS))) == ["<turn>", "?", "</turn>", "<turn>"]
    assert said(Chat(tokenizer(None)), "ask?") == ["ask", "?"]


def test_of_several_templates_the_default_is_asked_with() -> None:
    assert said(Chat(tokenizer({"tool_use": "ask", "default": TURNS}))) == ["<turn>", "?", "</turn>", "<turn>"]
    with pytest.raises(SourceError, match=r"chat templates named tool_use, rag, and none is called default"):
        Chat(tokenizer({"tool_use": TURNS, "rag": TURNS}))


@pytest.mark.parametrize("call", ["strftime_now('%d %b %Y')", 'strftime_now( "%d %b %Y" )'])
def test_a_question_is_put_alike_on_any_day(call: str) -> None:
    dated = (
        "{% if strftime_now is defined %}{% set day = " + call + " %}{% endif %}{{ day }} {{ messages[0]['content'] }}"
    )
    chat = Chat(tokenizer(dated))
    put = chat._put({"role": "user", "content": "?"}, tokenize=False)
    assert put == f"{DAY:%d %b %Y} ?" == "01 Jan 2025 ?"
    assert chat.template != dated


@pytest.mark.parametrize(("opens", "opening"), [("<think>\n", "<think>\n"), ("<think>", "<think>"), ("<turn>", "")])
def test_a_thought_that_the_template_begins_belongs_to_the_answer(opens: str, opening: str) -> None:
    assert Chat(tokenizer(TURNS.replace("<turn>{% endif %}", opens + "{% endif %}"))).opening == opening
    assert Chat(tokenizer(None)).opening == ""


def test_an_answer_ends_as_the_template_ends_one() -> None:
    eos, turn, end = (WORDS.index(word) for word in ("<eos>", "<turn>", "</turn>"))
    assert Chat(tokenizer(TURNS)).end({eos, end}) == end
    assert Chat(tokenizer(TURNS)).end({eos, turn}) == eos  # what stands before an answer ends none
    assert Chat(tokenizer(None)).end({eos, end}) == eos
    silent = "{{ raise_exception('no answers') if messages|length > 1 }}" + TURNS
    assert Chat(tokenizer(silent)).end({eos, end}) == eos
