"""Put a conversation into the words of a chat template, and begin its answer."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from safety_harness.conversation import Conversation
from safety_harness.errors import SourceError, remark
from safety_harness.judging.thoughts import end_marker, open_thought, without_thought

_PROBE = {"system": "Count the loaves: xqj.", "user": "Which of these is a loaf: xqj or jqx?"}


class Dialogue:
    """Conversations in the words of a *template*. Without one, their texts stand below each other."""

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        self._tokenizer = tokenizer
        self._template = template

    def prompt(self, conversation: Conversation) -> str:
        """Return what the model reads, up to where the answer begins or, behind a prefill, goes on.

        Raises:
            SourceError: the template does not put each turn and the prefill as they are.
        """
        prefill = conversation.prefill
        if self._template is None:
            return "\n".join([*(turn.text for turn in conversation.turns), *([prefill] if prefill else [])])
        conversation = self._taken(conversation)
        asked = self._put(conversation, add_generation_prompt=True)
        if not prefill:
            return asked
        if opening := self._opening(conversation, asked):
            return asked + self._closed(opening) + prefill
        return self._continued(conversation)

    def begun(self, conversation: Conversation) -> str:
        """Return what the answer begins with behind the thought that the template opens, if it opens one.

        Raises:
            SourceError: as :meth:`prompt`.
        """
        if self._template is None:
            return conversation.prefill
        conversation = self._taken(conversation)
        opening = self._opening(conversation, self._put(conversation, add_generation_prompt=True))
        return (self._closed(opening) if opening else "") + conversation.prefill

    def _continued(self, conversation: Conversation) -> str:
        """Return the prompt with the prefill as the beginning of a turn that is not ended."""
        final = {"role": "assistant", "content": conversation.prefill}
        text = self._put(conversation, final, continue_final_message=True)
        head = text.removesuffix(conversation.prefill)
        if head == text:
            raise SourceError(
                f"{origin(self._tokenizer)}: its chat template changes the first words of an answer, "
                f"{conversation.prefill!r}. {conversation.name} needs them: mend the template, or leave the attack out."
            )
        opening = self._opening(conversation, head)
        return head + (self._closed(opening) if opening else "") + conversation.prefill

    def _opening(self, conversation: Conversation, prompt: str) -> str:
        """Return the thought that *prompt* opens behind the last turn, or an empty string."""
        return open_thought(prompt.rpartition(conversation.turns[-1].text.strip())[2])

    def _closed(self, opening: str) -> str:
        """Return what ends the thought *opening*, so that an answer can begin.

        Raises:
            SourceError: no marker is known that ends it.
        """
        marker = end_marker(opening)
        closed = f"\n{marker}\n\n" if opening.endswith("\n") else marker
        if not marker or without_thought(f"{opening}{closed}.").strip() != ".":
            raise SourceError(
                f"{origin(self._tokenizer)}: its chat template begins each answer with a thought ({opening[:40]!r}). "
                "How that ends is not known, so no attack can begin the answer. Leave the prefill attacks out."
            )
        return closed

    def _taken(self, conversation: Conversation) -> Conversation:
        """Return *conversation* with its system turn where the template takes it."""
        return conversation if not conversation.system or self._takes_system else conversation.without_system()

    @functools.cached_property
    def _takes_system(self) -> bool:
        """Whether the template puts a system turn."""
        try:
            text = self._render([{"role": role, "content": content} for role, content in _PROBE.items()])
        except Exception:  # a template may raise any kind of error
            text = ""
        if takes := text.find(_PROBE["system"]) >= 0:
            return takes
        remark(
            f"{origin(self._tokenizer)}: its chat template takes no system turn. What an attack says there is put "
            "at the beginning of the user's first turn."
        )
        return False

    def _put(self, conversation: Conversation, *final: dict[str, str], **how: bool) -> str:
        """Return the prompt of *conversation*, with a *final* message behind it.

        Raises:
            SourceError: the template cannot put it, or leaves a turn out or changes it.
        """
        try:
            text = self._render([*conversation.messages, *final], **how)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise SourceError(
                f"{origin(self._tokenizer)}: its chat template cannot put a conversation ({type(error).__name__}: "
                f"{reason:.200}). {conversation.name} needs that: mend the template, or leave the attack out."
            ) from error
        at = 0
        for turn in conversation.turns:
            said = turn.text.strip()
            found = text.find(said, at)
            if found < 0:
                raise SourceError(
                    f"{origin(self._tokenizer)}: its chat template leaves out or changes the {turn.role} turn "
                    f"{said[:60]!r}. {conversation.name} needs it: mend the template, or leave the attack out."
                )
            if turn.role != "system":  # which some templates put into the user's last turn
                at = found + len(said)
        return text

    def _render(self, messages: list[dict[str, str]], **how: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(messages, chat_template=self._template, tokenize=False, **how)
        return text


def origin(tokenizer: Any) -> Path | str:
    """Return the file that the tokenizer's chat template came from, or else the name of the tokenizer."""
    files = (Path(tokenizer.name_or_path) / name for name in ("chat_template.jinja", "tokenizer_config.json"))
    return next((file for file in files if file.is_file()), str(tokenizer.name_or_path) or "the tokenizer")
