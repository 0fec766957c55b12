"""Read the conversation in a row of a question file: its messages, and the first words of the answer."""

from __future__ import annotations

from typing import Any

from safety_harness.conversation import Conversation, Turn
from safety_harness.errors import DataError

# The column that holds a conversation where no other one is named, and the one with the first words of the answer.
MESSAGES, PREFILL = "messages", "prefill"


def conversation_in(value: Any, place: str) -> Conversation | None:
    """Return the conversation of a list of messages; None if *value* is none.

    Where the last message is the assistant's, the answer begins with it.

    Raises:
        DataError: one of them is no message, or they cannot be sent in this order; the error begins with *place*.
    """
    if not isinstance(value, list) or not any(isinstance(one, dict) for one in value):
        return None
    turns = []
    for number, message in enumerate(value, 1):
        role, content = (message.get(name) for name in ("role", "content")) if isinstance(message, dict) else (None, "")
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(
                f'{place}: message {number} is no object with strings "role" and "content". Correct it, and leave out '
                "what is no text."
            )
        turns.append(Turn(role, content))  # type: ignore[arg-type]  # Conversation checks it
    prefill = turns.pop().text if len(turns) > 1 and turns[-1].role == "assistant" else ""
    return _checked(tuple(turns), prefill, place)


def begun(text: str, conversation: Conversation | None, prefill: Any, place: str) -> Conversation | None:
    """Return what asks *text*, in its *conversation* if there is one, and begins the answer with *prefill*.

    Raises:
        DataError: the prefill is no string, has white space at its ends, or is the second one.
    """
    if prefill in (None, ""):
        return conversation
    if not isinstance(prefill, str):
        raise DataError(f'{place}: "{PREFILL}" must be a string, the first words of the answer.')
    if conversation and conversation.prefill:
        raise DataError(
            f'{place}: has a "{PREFILL}", and messages that end with the assistant\'s. Keep one: either begins the '
            "answer."
        )
    return _checked(conversation.turns if conversation else (Turn("user", text),), prefill, place)


def _checked(turns: tuple[Turn, ...], prefill: str, place: str) -> Conversation:
    try:
        return Conversation(turns, prefill)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
