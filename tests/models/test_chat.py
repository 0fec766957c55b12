"""How a question is put: the same on any day, and what the template itself says of the answer."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from safety_harness.errors import SourceError
from safety_harness.models.chat import TEMPLATE_DATE, Chat
from tests.builders import make_tokenizer

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
    "call",
    [
        "strftime_now('%d %b %Y')",
        'strftime_now( "%d %b %Y" )',
        "strftime_now(format='%d %b %Y')",
        "strftime_now ('%d %b %Y')",
    ],
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


FORMS = {
    "another name": "{% set now = strftime_now %}{{ now('%Y') }}",
    "a macro": "{% macro year() %}{% set now = strftime_now %}{{ now('%Y') }}{% endmacro %}{{ year() }}",
    "a macro's argument": "{% macro call(f) %}{{ f('%Y') }}{% endmacro %}{{ call(strftime_now) }}",
    "a namespace": "{% set n = namespace(now=strftime_now) %}{{ n.now('%Y') }}",
    "a block": "{% block head %}{% set now = strftime_now %}{{ now('%Y') }}{% endblock %}",
    "a loop": "{% for now in [strftime_now] %}{{ now('%Y') }}{% endfor %}",
    "itself": "{{ self._TemplateReference__context['strftime_now'] }}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_today_gets_into_no_prompt(form: str) -> None:
    """Ask for the date in ways that cannot be replaced in the template's text."""
    fast = make_tokenizer()
    fast.chat_template = form + TURNS
    with pytest.raises(SourceError, match=r"answers would depend on the day|SecurityError"):
        Chat(fast)


@pytest.mark.parametrize(
    "form",
    [
        "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}",
        "{% if strftime_now is not defined or strftime_now is undefined %}today{% endif %}",
        "{# strftime_now(how) #}strftime_now tells the date.{{ 'strftime_now(how)' }}",
    ],
)
def test_the_name_of_the_date_alone_is_no_date(form: str) -> None:
    fast = make_tokenizer()
    fast.chat_template = form + TURNS
    assert Chat(fast).tokens("how ?")


def test_a_date_that_cannot_be_replaced_is_refused() -> None:
    with pytest.raises(SourceError, match="answers would depend on the day"):
        Chat(tokenizer("{% set how = '%d' %}{{ strftime_now(how) }}" + TURNS))


@pytest.mark.parametrize(("opens", "opening"), [("<think>\n", "<think>\n"), ("<think>", "<think>"), ("<turn>", "")])
def test_a_thought_begun_by_the_template_is_part_of_the_answer(opens: str, opening: str) -> None:
    assert Chat(tokenizer(TURNS.replace("<turn>{% endif %}", opens + "{% endif %}"))).opening == opening
    assert Chat(tokenizer(None)).opening == ""


@pytest.mark.parametrize("special", [(), ("<think>", "</think>")])
def test_the_markers_of_a_thought_are_part_of_the_text(special: tuple[str, ...]) -> None:
    """Keep them whether they are special tokens or not, and whether the template begins the thought or the model."""
    thinking = TURNS.replace("<turn>{% endif %}", "<think>{% endif %}")
    tokens = [WORDS.index(word) for word in ("No", "</think>", "Yes", "</turn>")]
    for template in (thinking, TURNS, None):
        chat = Chat(tokenizer(template, *special))
        assert chat.text(tokens).replace(" ", "") == "No</think>Yes"
        assert chat.text([WORDS.index("<think>"), *tokens]).replace(" ", "") == "<think>No</think>Yes"
        assert chat.text(tokens[:1]) == "No"
        assert chat.text([]) == ""
        assert chat.marks_thoughts


def test_an_unknown_token_ends_no_thought() -> None:
    """Take the end marker out of the vocabulary: what the model says instead of it is unknown, and left out."""
    thinking = TURNS.replace("<turn>{% endif %}", "<think>{% endif %}")
    plain = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS[:8])}, unk_token="<unk>"))
    fast = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", unk_token="<unk>")
    fast.chat_template = thinking
    chat = Chat(fast)
    assert chat.opening + chat.text([WORDS.index("No"), 0, WORDS.index("Yes")]) == "<think>No Yes"


OPENINGS = [
    ("[THINK]", "[THINK]"),
    ("<|START_THINKING|>", "<|START_THINKING|>"),
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>analysis<|message|>"),
    ("<think>\nOkay, ", "<think>\nOkay, "),
    ("<think>\n\n</think>\n\n", ""),
    ("<|start|>assistant<|channel|>final<|message|>", ""),
    ("Say what you <think>.</think>", ""),
]


@pytest.mark.parametrize(("opens", "opening"), OPENINGS)
def test_the_opening_is_a_thought_that_is_not_ended(opens: str, opening: str) -> None:
    """Look behind the question alone: words before it may explain the markers."""
    template = "Think between <think> and </think>, as in <think>." + TURNS.replace("<turn>{% e", opens + "{% e")
    assert Chat(tokenizer(template)).opening == opening


HARMONY = ["<|channel|>", "<|message|>", "<|start|>", "<|end|>"]


@pytest.mark.parametrize(
    ("special", "answer"),
    [
        (["[THINK]", "[/THINK]"], "[THINK]No[/THINK]Yes"),
        (["<|START_THINKING|>", "<|END_THINKING|>"], "<|START_THINKING|>No<|END_THINKING|>Yes"),
        (HARMONY, "<|channel|>analysis<|message|>No<|end|><|start|>assistant<|channel|>final<|message|>Yes"),
        (HARMONY, "<|channel|>analysis<|message|>No"),
        (["<|end|>"], "Yes"),  # ends a turn here, and no thought
    ],
)
def test_special_tokens_that_mark_thoughts_are_kept(special: list[str], answer: str) -> None:
    """Put an end-of-turn token behind each answer, which is left out."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [*special, "<turn>"]})
    tokens = tokenizer(f"{answer}<turn>{special[-1] if answer[0] == 'Y' else ''}", add_special_tokens=False)[
        "input_ids"
    ]
    assert Chat(tokenizer).text(tokens) == answer
    assert Chat(tokenizer).marks_thoughts == (answer != "Yes")
    assert not Chat(make_tokenizer()).marks_thoughts


def test_a_marker_in_the_vocabulary_marks_thoughts() -> None:
    """Put one among the words that were trained with the tokenizer, and not among the added tokens."""
    for word, marks in (("[THINK]", True), ("<b>", False)):
        plain = Tokenizer(models.WordLevel({"<unk>": 0, word: 1}, unk_token="<unk>"))
        assert Chat(PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>")).marks_thoughts == marks


@pytest.mark.parametrize("template", [TURNS, TURNS.replace("<turn>{% endif %}", "<think>{% endif %}")])
def test_an_answer_ends_with_the_template_end_token(template: str) -> None:
    eos, turn, end = (WORDS.index(word) for word in ("<eos>", "<turn>", "</turn>"))
    assert Chat(tokenizer(template)).end({eos, end}) == end
    assert Chat(tokenizer(template)).end({eos, turn}) == eos  # what stands before an answer ends none
    assert Chat(tokenizer(None)).end({eos, end}) == eos
    silent = "{{ raise_exception('no answers') if messages|length > 1 }}" + template
    assert Chat(tokenizer(silent)).end({eos, end}) == eos


def ending(*behind: str, template: bool = False) -> Any:
    """Return a tokenizer that puts <bos> before every text, and the tokens *behind* after it."""
    tokenizer = make_tokenizer(template=template)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(["<bos>", "$A", *behind]),
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<bos>", *behind)],
    )
    return tokenizer


@pytest.mark.parametrize("behind", [("<eos>",), ("<end>", "<eos>")])
@pytest.mark.parametrize("text", ["how do i bake bread ?", "a", "<eos>", ""])
def test_an_end_of_text_behind_every_text_is_left_off(behind: tuple[str, ...], text: str) -> None:
    """Keep one that is part of the text itself."""
    expected = ending()(text)["input_ids"]
    with pytest.warns(UserWarning, match=f"its tokenizer puts '{''.join(behind)}' behind every text. It is left off"):
        assert Chat(ending(*behind)).tokens(text) == expected
    with pytest.warns(UserWarning, match="left off"):
        assert Chat(ending(*behind, template=True)).plain(text) == expected
    assert Chat(ending(*behind, template=True)).tokens("how ?")[-1] == ending().convert_tokens_to_ids("<assistant>")


def test_an_end_of_text_between_any_two_turns_is_remarked() -> None:
    """Put questions as the template of GPT-2 and DialoGPT does, with white space that is tidied up or kept."""
    fast = make_tokenizer()
    fast.chat_template = "{% for m in messages %}{{ m.content.replace('\n\n', '\n') }}{{ eos_token }}{% endfor %}"
    with pytest.warns(UserWarning, match=r"ends a question with an end of text \(<eos>\). Answers begin behind it"):
        chat = Chat(fast)
    assert chat.tokens("how ?")[-1] == fast.eos_token_id
    assert chat.tokens("how ?\nwhy ?")
    with pytest.raises(SourceError, match="changes the question 'how"):
        chat.tokens("how ?\n\nwhy ?")


def test_a_tokenizer_that_adds_nothing_behind_a_text_is_as_it_was() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Chat(ending()).tokens("how ?") == ending()("how ?")["input_ids"]
        assert Chat(make_tokenizer(template=False)).tokens("") == []
