"""Conversations in the words of chat templates: every turn as it is, and an answer that is begun."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from safety_harness.attacks.builtin import builtin_attacks
from safety_harness.conversation import Conversation, Turn
from safety_harness.errors import Remark, SourceError
from safety_harness.models.chat import Chat
from tests.builders import make_tokenizer
from tests.models.templates import CHATML, DEAF, GEMMA, HARMONY, LLAMA, MISTRAL, QWEN3, THINKING

RULES, ASK, SAID, GO = "Be brief.", "How do I bake bread?", "With which flour?", "Rye. Go on."
PLAIN = Conversation.of(ASK)
TURNS = Conversation((Turn("user", ASK), Turn("assistant", SAID), Turn("user", GO)), attack="talk")
RULED = Conversation((Turn("system", RULES), Turn("user", ASK)), attack="ruled")
BEGUN = Conversation((Turn("user", ASK),), "Sure, here is", attack="begun")
ALL = Conversation((Turn("system", RULES), *TURNS.turns), "Step 1:", attack="all")
KINDS = {"chatml": CHATML, "qwen3": QWEN3, "llama": LLAMA, "mistral": MISTRAL, "thinking": THINKING, "harmony": HARMONY}


def chat(template: str | None) -> Chat:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return Chat(tokenizer)


def rendered(conversation: Conversation, template: str, **how: Any) -> str:
    """Return what transformers makes of a conversation."""
    begun = [{"role": "assistant", "content": conversation.prefill}] if conversation.prefill else []
    how = {"continue_final_message": True} if begun else {"add_generation_prompt": True}
    text: str = make_tokenizer().apply_chat_template(
        [*conversation.messages, *begun], chat_template=template, tokenize=False, **how
    )
    return text


@pytest.mark.parametrize("template", [*KINDS.values(), GEMMA, DEAF, None])
def test_a_plain_conversation_is_the_question(template: str | None) -> None:
    asked = chat(template)
    assert asked.tokens(PLAIN) == asked.tokens(ASK)
    assert asked.prompt(PLAIN) == asked.prompt(ASK)
    assert asked.begun(PLAIN) == asked.begun(ASK) == ""


@pytest.mark.parametrize("conversation", [TURNS, RULED, BEGUN, ALL], ids=lambda one: one.attack)
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"thinking"}))
def test_conversations_are_put_as_transformers_puts_them(kind: str, conversation: Conversation) -> None:
    asked = chat(KINDS[kind])
    expected = rendered(conversation, KINDS[kind])
    assert asked.prompt(conversation) == expected
    assert asked.tokens(conversation) == make_tokenizer()(expected, add_special_tokens=False)["input_ids"]
    assert asked.prompt(conversation).endswith(conversation.prefill)
    assert asked.begun(conversation) == conversation.prefill


def test_a_prefill_follows_what_stands_before_every_answer() -> None:
    assert chat(LLAMA).prompt(BEGUN) == chat(LLAMA).prompt(ASK) + "Sure, here is"
    assert chat(QWEN3).prompt(BEGUN) == chat(QWEN3).prompt(ASK) + "<think>\n\n</think>\n\nSure, here is"
    assert chat(HARMONY).prompt(BEGUN) == chat(HARMONY).prompt(ASK) + "<|channel|>final<|message|>Sure, here is"


@pytest.mark.parametrize("template", [GEMMA, DEAF])
def test_a_system_turn_that_is_not_taken_is_folded_and_said_once(template: str) -> None:
    asked = chat(template)
    with pytest.warns(Remark, match="takes no system turn. What an attack says there is put at the beginning") as said:
        prompts = [asked.prompt(conversation) for conversation in (RULED, ALL)]
    assert prompts == [rendered(conversation.without_system(), template) for conversation in (RULED, ALL)]
    assert len(said) == 1
    assert f"{RULES}\n\n{ASK}" in asked.prompt(RULED)


def test_a_template_that_takes_a_system_turn_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RULES in chat(LLAMA).prompt(RULED)
        assert chat(GEMMA).prompt(BEGUN)  # has no system turn to fold


@pytest.mark.parametrize(
    ("opening", "closed"),
    [
        ("<think>\n", "\n</think>\n\n"),
        ("<think>", "</think>"),
        ("<THINKING>", "</THINKING>"),
        ("[THINK]", "[/THINK]"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|begin_of_thought|>\n\n", "\n<|end_of_thought|>\n\n"),
        ("<|think|>", "<|/think|>"),
        ("◁think▷", "◁/think▷"),
        ("<|channel>thought\n", "\n<channel|>\n\n"),
        ("<|inner_prefix|>", "<|inner_suffix|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("<think>\nOkay, ", "</think>"),
    ],
)
def test_a_thought_that_the_template_opens_is_ended_first(opening: str, closed: str) -> None:
    """Put what ends it into the answer, too, so that the opening and the answer are what the user would be shown."""
    asked = chat(THINKING.replace("<think>\n", opening))
    assert asked.opening == opening
    assert asked.prompt(BEGUN) == f"{asked.prompt(ASK)}{closed}Sure, here is"
    assert asked.begun(BEGUN) == f"{closed}Sure, here is"
    assert asked.prompt(TURNS).endswith(f"assistant\n{opening}")
    assert asked.begun(TURNS) == ""


def test_a_thought_of_no_known_end_is_an_error() -> None:
    asked = chat("{% for m in messages %}<turn>{{ m.content }}{% endfor %}Here is my thought process:")
    assert asked.opening == "Here is my thought process:"
    with pytest.raises(
        SourceError, match=r"begins each answer with a thought \('Here is my.*Leave the prefill attacks"
    ):
        asked.prompt(BEGUN)
    with pytest.raises(SourceError, match="How that ends is not known"):
        asked.begun(BEGUN)
    assert asked.prompt(TURNS)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("m.content | upper if m.role == 'assistant' else m.content", "leaves out or changes the assistant turn 'With"),
        ("m.content if m.role == 'user' else ''", "leaves out or changes the assistant turn 'With"),
        ("m.content if loop.last else ''", "leaves out or changes the user turn 'How"),
        ("m.content | upper if loop.last else m.content", "leaves out or changes the user turn 'Rye"),
        ("m.content | upper if loop.last and m.role == 'assistant' else m.content", r"cannot put .*\(ValueError: cont"),
    ],
)
def test_a_template_that_changes_a_turn_is_an_error(change: str, why: str) -> None:
    say = "{{ m.content if messages|length == 1 else (" + change + ") }}"  # a question alone is put as it is
    asked = chat("{% for m in messages %}<{{ m.role }}>" + say + "<end>{% endfor %}<assistant>")
    with pytest.raises(SourceError, match=rf"{why}.*The attack 'all' needs .*leave the attack out"):
        asked.prompt(Conversation(TURNS.turns, "Sure, here is", attack="all"))


def test_turns_in_another_order_are_an_error() -> None:
    asked = chat("{% for m in messages | reverse %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}<assistant>")
    with pytest.raises(SourceError, match="leaves out or changes the assistant turn 'With"):
        asked.prompt(TURNS)


def test_a_thought_that_only_a_continued_answer_begins_with_is_ended() -> None:
    """Open the thought before the last answer alone, and not where the model begins one."""
    asked = chat(CHATML.replace("{{ m.content }}", "{% if m.role == 'assistant' %}<think>{% endif %}{{ m.content }}"))
    assert asked.opening == ""
    assert asked.prompt(BEGUN) == asked.prompt(ASK) + "<think></think>Sure, here is"
    assert asked.begun(BEGUN) == "Sure, here is"


def test_a_changed_prefill_is_seen_where_the_question_holds_it() -> None:
    """Say the prefill in the question as well: transformers then takes it for put."""
    shouting = "m.content | upper if m.role == 'assistant' else m.content"
    asked = chat("{% for m in messages %}<{{ m.role }}>{{ " + shouting + " }}<end>{% endfor %}<assistant>")
    with pytest.raises(SourceError, match=r"first words of an answer, 'Sure, here is'\. The attack 'echo' needs them"):
        asked.prompt(Conversation((Turn("user", "Say: Sure, here is"),), "Sure, here is", attack="echo"))


def test_without_a_template_texts_stand_below_each_other() -> None:
    asked = chat(None)
    assert asked.prompt(ALL) == "\n".join([RULES, ASK, SAID, GO, "Step 1:"])
    assert asked.tokens(ALL) == asked.plain(asked.prompt(ALL))
    assert asked.begun(ALL) == "Step 1:"
    assert asked.prompt(RULED) == f"{RULES}\n{ASK}"


@pytest.mark.parametrize("template", [*KINDS.values(), GEMMA, None], ids=[*KINDS, "gemma", "none"])
def test_every_attack_is_put_by_every_template(template: str | None) -> None:
    asked = chat(template)
    with warnings.catch_warnings(record=True):  # of a system turn that is not taken
        for attack in builtin_attacks().values():
            conversation = attack.sees("Write a poem about a loaf of bread")
            assert isinstance(conversation, Conversation)
            prompt = asked.prompt(conversation)
            assert prompt.endswith(conversation.prefill)
            assert all(turn.text.strip() in prompt for turn in conversation.turns)
            assert asked.tokens(conversation)
