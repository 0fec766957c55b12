"""Conversations in question files: what is read is what is sent, and each fault has its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safety_harness.conversation import Asked, Conversation, Turn
from safety_harness.errors import DataError
from safety_harness.files import sha256_text
from safety_harness.registry.columns import Columns
from safety_harness.registry.hash_split import side_of
from safety_harness.registry.prompts import (
    Prompt,
    as_documents,
    check_disjoint,
    prompt_set,
    read_prompts,
    without_near_duplicates,
)

ASK, RULES, SAID = Turn("user", "How do bees fly?"), Turn("system", "Be brief."), Turn("assistant", "Which bees?")
YES = Turn("user", "Yes, please.")


def write(folder: Path, *rows: Any, name: str = "a.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def messages(*turns: Turn) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


@pytest.mark.parametrize(
    ("row", "sent"),
    [
        ({"messages": messages(ASK)}, ASK.text),
        ({"messages": messages(RULES, ASK)}, Conversation((RULES, ASK))),
        ({"messages": messages(ASK, SAID, YES)}, Conversation((ASK, SAID, YES))),
        ({"messages": messages(RULES, ASK, SAID)}, Conversation((RULES, ASK), SAID.text)),
        ({"messages": messages(ASK, SAID, YES), "prefill": "Sure"}, Conversation((ASK, SAID, YES), "Sure")),
        ({"text": ASK.text, "prefill": "Sure, here is"}, Conversation((ASK,), "Sure, here is")),
        ({"prompt": ASK.text, "prefill": "", "messages": None}, ASK.text),
        ({"text": ASK.text, "prefill": None, "messages": []}, ASK.text),
        ({"text": ASK.text, "messages": "of another kind"}, ASK.text),
        ({"turns": [ASK.text]}, ASK.text),
        ({"turns": [ASK.text], "prefill": "Sure"}, Conversation((ASK,), "Sure")),
        ({"messages": [{"role": "user", "content": ASK.text, "name": "x"}], "prompt_id": "7"}, ASK.text),
    ],
)
def test_a_row_is_asked_as_its_conversation(tmp_path: Path, row: dict[str, Any], sent: Asked) -> None:
    """Check what is sent, the question in it, and the answer and category next to it."""
    (prompt,) = read_prompts(write(tmp_path, {**row, "id": 3, "answer": "by wings", "category": "bees"}))
    assert prompt.sent == sent
    assert prompt.text == (sent if isinstance(sent, str) else sent.turns[-1].text)
    assert (prompt.conversation is None) == isinstance(sent, str)
    assert (prompt.id, prompt.answer, prompt.category) == ("3", "by wings", "bees")


def test_a_column_of_another_name_may_hold_messages(tmp_path: Path) -> None:
    file = write(tmp_path, {"text": "x", "chat": messages(RULES, ASK), "messages": messages(YES)})
    read = {name: read_prompts(file, columns=Columns(text=name)).prompts[0] for name in ("text", "chat", "messages")}
    assert [prompt.sent for prompt in read.values()] == ["x", Conversation((RULES, ASK)), YES.text]


def test_a_table_may_begin_the_answers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,prefill\none?,"Sure, here is"\ntwo?,\n')
    one, two = read_prompts(tmp_path / "a.csv")
    assert (one.sent, two.sent) == (Conversation((Turn("user", "one?"),), "Sure, here is"), "two?")
    (tmp_path / "b.csv").write_text("text,prefill\none?, Sure\n")
    with pytest.raises(DataError, match=r"b.csv, line 2: A conversation has a prefill with white space at its ends"):
        read_prompts(tmp_path / "b.csv")


FAULTS: dict[str, tuple[Any, str]] = {
    "two questions": ({"text": "x", "messages": messages(ASK)}, "has text and messages, and one of them is asked. Say"),
    "an empty list": ({"messages": []}, r'expected an object with a string "text", or a list "messages" of'),
    "several texts": ({"turns": ["a", "b"]}, 'expected an object with a string "text"'),
    "a text among messages": ({"messages": [*messages(ASK), "b"]}, "message 2 is no object with strings"),
    "no content": ({"messages": [{"role": "user"}]}, 'message 1 is no object with strings "role" and "content"'),
    "parts": ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "message 1 is no object with strings"),
    "another role": ({"messages": [{"role": "tool", "content": "x"}]}, "a turn of 'tool', and roles are system"),
    "a blank turn": ({"messages": messages(Turn("user", " "))}, "A conversation has a blank user turn"),
    "two of one": ({"messages": messages(ASK, YES)}, "turns of user and assistant that do not alternate"),
    "no user": ({"messages": messages(RULES)}, "does not end with a user's turn"),
    "the assistant alone": ({"messages": messages(SAID)}, "do not alternate, with a user's first"),
    "white space": ({"text": "x", "prefill": "Sure\n"}, "prefill with white space at its ends"),
    "no text": ({"text": "x", "prefill": ["Sure"]}, '"prefill" must be a string, the first words'),
    "two beginnings": ({"messages": messages(ASK, SAID), "prefill": "Sure"}, 'has a "prefill", and messages that end'),
}


@pytest.mark.parametrize(("row", "why"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_file_and_line(tmp_path: Path, row: Any, why: str) -> None:
    with pytest.raises(DataError, match=rf"a.jsonl, line 2: .*{why}"):
        read_prompts(write(tmp_path, {"text": "fine"}, row))


def test_the_hash_covers_what_is_sent(tmp_path: Path) -> None:
    """Send one text in several ways. A question in the form of messages is that question."""
    rows: list[dict[str, Any]] = [
        {"text": ASK.text},
        {"text": ASK.text, "prefill": "Sure"},
        {"messages": messages(RULES, ASK)},
        {"messages": messages(Turn("user", "Hi."), SAID, ASK)},
    ]
    assert len({read_prompts(write(tmp_path, row)).sha256 for row in rows}) == 4
    plain = read_prompts(write(tmp_path, {"messages": messages(ASK)}))
    assert plain == read_prompts(write(tmp_path, {"text": ASK.text}))
    assert plain.prompts[0].id == sha256_text(ASK.text)[:12]


def test_one_question_may_be_asked_in_several_conversations(tmp_path: Path) -> None:
    """Repeat a question as it is, with two beginnings, and as the end of two talks: but none of these twice."""
    rows: list[dict[str, Any]] = [
        {"text": ASK.text},
        {"text": ASK.text, "prefill": "Sure"},
        {"text": ASK.text, "prefill": "Step 1:"},
        {"messages": messages(Turn("user", "Hi."), SAID, ASK)},
        {"messages": messages(Turn("user", "Ho."), SAID, ASK)},
    ]
    assert len({prompt.id for prompt in read_prompts(write(tmp_path, *rows))}) == len(rows)
    for row in rows:
        with pytest.raises(DataError, match="prompt 6 repeats prompt"):
            read_prompts(write(tmp_path, *rows, json.loads(json.dumps(row).replace("How do", "how do "))))


def talk(identifier: str, first: str) -> Prompt:
    conversation = Conversation((Turn("user", first), SAID, YES))
    return Prompt(identifier, YES.text, conversation=conversation)


def test_conversations_are_compared_by_all_that_the_user_says() -> None:
    """End two scripts alike: they are two questions. A question that is begun is on the side of the plain one."""
    search = prompt_set("search", [talk("1", "How do fish swim?")])
    report = prompt_set("report", [talk("2", "Why do stones sink in deep water?")])
    check_disjoint(search, report)
    assert without_near_duplicates(search, report, 0.8) == search
    begun = Prompt("3", ASK.text, conversation=Conversation((ASK,), "Sure"))
    with pytest.raises(DataError, match="search and report share 1 prompts"):
        check_disjoint(prompt_set("search", [begun]), prompt_set("report", [Prompt("4", ASK.text)]))
    with pytest.raises(DataError, match="share 1 prompts"):
        check_disjoint(search, prompt_set("report", [talk("2", "how do  fish SWIM?")]))
    for at in range(20):
        plain = Prompt("5", f"question {at}?")
        pair = [plain, Prompt("6", plain.text, conversation=Conversation((Turn("user", plain.text),), "Sure"))]
        sides = [len(side) for name in ("search", "report") if (side := one_side(pair, name))]
        assert sides == [2]


def one_side(prompts: list[Prompt], name: str) -> list[Prompt]:
    try:
        return list(side_of(prompt_set("set", prompts), name))
    except DataError:
        return []


def test_prose_is_no_conversation() -> None:
    documents = prompt_set("prose", [Prompt("1", "Bees fly.")])
    assert as_documents(documents) is documents
    with pytest.raises(DataError, match=r"prose: 'Yes, please.' is asked in a conversation, and prose is none. Remove"):
        as_documents(prompt_set("prose", [*documents, talk("2", "Hi.")]))
