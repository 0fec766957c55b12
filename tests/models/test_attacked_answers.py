"""Answers to conversations are those of transformers, and a plain question is put as it always was."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from safety_harness.conversation import Asked, Conversation, Turn
from safety_harness.errors import DataError
from safety_harness.models.chat import Chat
from safety_harness.models.generate import Generator, Screen
from safety_harness.models.load import load
from tests.builders import CONTEXT, LONG, SHORT, make_tokenizer
from tests.models.answering import NEW, QUESTIONS, Pairs, count_passes, generator, reference

FAMILIES = Path(str(resources.files("safety_harness").joinpath("families/tiny")))
# Of the tokens of all questions of the family `tiny`, and of their text, before there were conversations.
PUT = {
    "gemma": "55a623f6bf0c76ebfe328ac7277dc2759ee31f25a515508b7b5ebd9d2f787b09",
    "llama": "2db027f330dcbb0920d59c8fc0a815885e355004dca61216e217d171ea96edde",
    "mistral": "9e69509b2e960cf0e4255558e4c37c36b4dac99545f54404919bf10e0dd57d2e",
}
TALK = (Turn("user", SHORT), Turn("assistant", "sure, mix well."), Turn("user", "what ?"))
SYSTEM = Turn("system", "take two of them.")
CONVERSATIONS: list[Conversation] = [
    Conversation(TALK[:1], "sure, take"),
    Conversation(TALK, "the answer is"),
    Conversation(TALK),
    Conversation((SYSTEM, TALK[0])),
    Conversation((SYSTEM, *TALK), "i cannot"),
    Conversation((Turn("user", LONG),), "sure, take"),
]
ASKED: list[Asked] = [CONVERSATIONS[0], SHORT, *CONVERSATIONS[1:4], QUESTIONS[3], *CONVERSATIONS[4:]]


@pytest.mark.parametrize("family", PUT)
def test_a_question_is_put_byte_for_byte_as_before(family: str) -> None:
    """Compare the embedded models with a recorded digest, and with the question as a conversation."""
    chat = Chat(AutoTokenizer.from_pretrained(FAMILIES / "models" / family / "teacher"))
    files = sorted((FAMILIES / "prompts").glob("*.jsonl"))
    questions = [json.loads(line)["text"] for file in files for line in file.read_text("utf-8").splitlines()]
    put = [[tokens, chat.text(tokens)] for tokens in map(chat.tokens, questions)]
    assert hashlib.sha256(json.dumps(put).encode()).hexdigest() == PUT[family]
    assert [chat.tokens(Conversation.of(question)) for question in questions] == [tokens for tokens, _ in put]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mistral", "qwen3_moe", "gpt2", "mpt"])
def test_conversations_are_answered_as_transformers_answers_them(pairs: Pairs, architecture: str) -> None:
    """Ask conversations and questions in one batch, in batches of three and alone, twice: once as drafts."""
    loaded = load(pairs(architecture, False)[0], "float32")
    encode = generator(loaded, 1).encode
    alone = [reference(loaded, encode(asked)) for asked in ASKED]
    assert len(set(map(tuple, alone))) > 3
    begun = [asked.prefill if isinstance(asked, Conversation) else "" for asked in ASKED]
    expected = [start + json.dumps(tokens) for start, tokens in zip(begun, alone, strict=True)]
    for batch_size in (1, 3, 64):
        asking = generator(loaded, batch_size)
        assert [asking.answers(ASKED, NEW), asking.answers(ASKED, NEW)] == [expected] * 2
        assert asking.answers(ASKED[::-1], NEW) == expected[::-1]


def test_the_tokens_of_a_conversation_are_those_of_transformers(pairs: Pairs) -> None:
    """Let transformers itself put and continue the conversation."""
    loaded = load(pairs("llama", False)[0], "float32")
    for conversation in CONVERSATIONS:
        begun = [{"role": "assistant", "content": conversation.prefill}] if conversation.prefill else []
        theirs = loaded.tokenizer.apply_chat_template(
            [*conversation.messages, *begun],
            add_generation_prompt=not begun,
            continue_final_message=bool(begun),
            return_dict=True,
        )["input_ids"]
        assert generator(loaded, 1).encode(conversation) == theirs


def test_a_plain_conversation_and_its_question_share_their_tokens(pairs: Pairs) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=3)
    assert asked.encode(Conversation.of(SHORT)) is asked.encode(SHORT)
    assert asked.answers([Conversation.of(SHORT), SHORT], NEW) == asked.answers([SHORT], NEW) * 2


def test_a_screen_sees_an_answer_with_its_beginning(pairs: Pairs) -> None:
    """Cut off what does not begin with a certain prefill: those answers end at the screen."""
    loaded = load(pairs("llama", False)[0], "float32")
    whole = generator(loaded, 64).answers(ASKED, NEW)
    seen: list[str] = []

    def goes_on(text: str, begun: str) -> bool:
        assert text.startswith(begun)
        seen.append(text)
        return text.startswith("sure, take")

    cut = generator(loaded, 64).answers(ASKED, NEW, Screen(3, goes_on))
    for before, after in zip(whole, cut, strict=True):
        start, tokens = before.partition("[")[0], json.loads(before[before.index("[") :])
        kept = tokens if start == "sure, take" else tokens[:3]
        assert after == start + json.dumps(kept)
    assert {text.partition("[")[0] for text in seen} == {"", "sure, take", "the answer is", "i cannot"}


def test_the_beginning_of_an_attack_is_read_once(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask several questions behind the same demonstrations."""
    loaded = load(pairs("llama", False)[0], "float32")
    asked = [Conversation((*TALK[:2], Turn("user", question)), "sure") for question in QUESTIONS]
    asking = generator(loaded, 64)
    padded = len(asked) * max(len(asking.encode(one)) for one in asked)
    read = count_passes(loaded.model, monkeypatch)
    asking.answers(asked, 1)
    assert sum(read) < padded - 100


def test_what_is_too_long_names_the_attack(pairs: Pairs) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    asked = generator(loaded, 2)
    long = Conversation((*TALK[:2], Turn("user", LONG)), attack="few-shot")
    room = CONTEXT - len(asked.encode(long))
    asked.check_lengths([long], room)
    with pytest.raises(
        DataError, match=r"^The attack 'few-shot': its conversation of \d+ tokens and \d+ for its answer"
    ):
        asked.answers([SHORT, long], room + 1)
    with pytest.raises(
        DataError, match=rf"the model's context of {CONTEXT}: 'what is .*Shorten the question, or leave"
    ):
        asked.check_lengths([long], room + 1)
    with pytest.raises(DataError, match=r"^A question of \d+ tokens and .* Shorten or remove it"):
        asked.check_lengths([Conversation.of(LONG)], CONTEXT)


# A decoder that leaves out the space of a first word, as SentencePiece does, and one that leaves out nothing.
WORDS = ["<unk>", "<eos>", "▁Sure", "▁here", "▁a", "▁loaf", "ves", "<think>", "</think>", "▁"]


def sentencepiece() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE({word: at for at, word in enumerate(WORDS)}, [], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="<unk>")


@pytest.mark.parametrize(
    ("tokens", "text"),
    [([4, 5], "Sure here a loaf"), ([6], "Sure hereves"), ([], "Sure here"), ([1], "Sure here"),
     ([7, 4, 8, 5], "Sure here<think> a</think> loaf")],
)  # fmt: skip
def test_a_begun_answer_is_joined_with_its_own_spaces(tokens: list[int], text: str) -> None:
    assert Chat(sentencepiece()).text(tokens, [3, 2, 3], "Sure here") == text
    assert sentencepiece().decode([4, 5]) == "a loaf"  # without its space


def test_a_decoder_that_drops_a_first_space_is_known() -> None:
    assert Chat(sentencepiece()).drops_first_space
    assert not Chat(make_tokenizer()).drops_first_space
    tiny = {family: Chat(AutoTokenizer.from_pretrained(FAMILIES / "models" / family / "teacher")) for family in PUT}
    assert [family for family, chat in tiny.items() if chat.drops_first_space] == ["mistral"]


def test_a_begun_answer_keeps_a_character_of_several_bytes() -> None:
    tokenizer = make_tokenizer(template=False)
    chat = Chat(tokenizer)
    prompt = tokenizer("Größe: 北")["input_ids"]
    for text in ("京 🙂", " next", ", then"):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert chat.text(tokens, prompt, "Größe: 北") == f"Größe: 北{text}"
