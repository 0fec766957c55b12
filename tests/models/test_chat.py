"""How a question is put: the same on any day, and what the template itself says of the answer."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from safety_harness.errors import SourceError
from safety_harness.models.chat import TEMPLATE_DATE, Chat

WORDS = ["<unk>", "<eos>", "<turn>", "</turn>", "ask", "?", "Yes", "No", "<think>", "</think>", "\n"]
TURNS = (
    "{% for m in messages %}<turn>{{ m['content'] }}</turn>{% endfor %}{% if add_generation_prompt %}<turn>{% endif %}"
)


def tokenizer(template: Any, *special: str) -> Any:
    plain = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<eos>", unk_token="<unk>", additional_special_tokens=[*WORDS[2:4], *special]
    )
    fast.add_tokens([word for word in WORDS if len(word) > 1])
    fast.chat_template = template
    return fast


def words(chat: Chat, question: str = "?") -> list[str]:
    return [WORDS[token] for token in chat.tokens(question)]


def test_a_question_is_put_by_the_template_or_as_it_is() -> None:
    assert words(Chat(tokenizer(TURNS))) == ["<turn>", "?", "</turn>", "<turn>"]
    assert words(Chat(tokenizer(None)), "ask?") == ["ask", "?"]


def test_of_several_templates_the_default_is_asked_with() -> None:
    assert words(Chat(tokenizer({"tool_use": "ask", "default": TURNS}))) == ["<turn>", "?", "</turn>", "<turn>"]
    with pytest.raises(SourceError, match=r"chat templates named tool_use, rag, and none is called default"):
        Chat(tokenizer({"tool_use": TURNS, "rag": TURNS}))


@pytest.mark.parametrize(
    "call", ["strftime_now('%d %b %Y')", 'strftime_now( "%d %b %Y" )', "strftime_now(format='%d %b %Y')"]
)
def test_a_question_is_put_alike_on_any_day(call: str) -> None:
    dated = (
        "{% if strftime_now is defined %}{% set day = " + call + " %}{% endif %}"
        "{{ 'Yes' if day == '01 Jan 2025' else 'No' }}{{ messages[0]['content'] }}"
    )
    chat = Chat(tokenizer(dated))
    assert words(chat) == ["Yes", "?"]
    assert chat.template != dated
    assert f"{TEMPLATE_DATE:%d %b %Y}" == "01 Jan 2025"


def test_a_date_that_cannot_be_replaced_is_refused() -> None:
    with pytest.raises(SourceError, match="answers would depend on the day"):
        Chat(tokenizer("{% set how = '%d' %}{{ strftime_now(how) }}" + TURNS))


@pytest.mark.parametrize(("opens", "opening"), [("<think>\n", "<think>\n"), ("<think>", "<think>"), ("<turn>", "")])
def test_a_thought_begun_by_the_template_is_part_of_the_answer(opens: str, opening: str) -> None:
    assert Chat(tokenizer(TURNS.replace("<turn>{% endif %}", opens + "{% endif %}"))).opening == opening
    assert Chat(tokenizer(None)).opening == ""


@pytest.mark.parametrize("special", [(), ("<think>", "</think>")])
def test_the_end_of_a_thought_is_part_of_the_text(special: tuple[str, ...]) -> None:
    thinking = TURNS.replace("<turn>{% endif %}", "<think>{% endif %}")
    tokens = [WORDS.index(word) for word in ("No", "</think>", "Yes", "</turn>")]
    assert Chat(tokenizer(thinking, *special)).text(tokens).replace(" ", "") == "No</think>Yes"
    assert Chat(tokenizer(thinking, *special)).text(tokens[:1]) == "No"
    assert Chat(tokenizer(TURNS, "</think>")).text(tokens).replace(" ", "") == "NoYes"  # whose template begins none


@pytest.mark.parametrize("template", [TURNS, TURNS.replace("<turn>{% endif %}", "<think>{% endif %}")])
def test_an_answer_ends_with_the_template_end_token(template: str) -> None:
    eos, turn, end = (WORDS.index(word) for word in ("<eos>", "<turn>", "</turn>"))
    assert Chat(tokenizer(template)).end({eos, end}) == end
    assert Chat(tokenizer(template)).end({eos, turn}) == eos  # what stands before an answer ends none
    assert Chat(tokenizer(None)).end({eos, end}) == eos
    silent = "{{ raise_exception('no answers') if messages|length > 1 }}" + template
    assert Chat(tokenizer(silent)).end({eos, end}) == eos
