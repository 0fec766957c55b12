"""Ask a model by its tokenizer's chat template, in the same words on any day, and read its answers."""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from safety_harness.conversation import Asked, Conversation, as_sent
from safety_harness.errors import SourceError, remark
from safety_harness.judging.thoughts import marker_tokens, open_thought
from safety_harness.models.dialogue import Dialogue, origin
from safety_harness.models.render_probes import asks_for_today
from safety_harness.models.template_trial import try_template
from safety_harness.reading import MIB, Reader

_TEMPLATE = Reader(SourceError, missing="this chat template cannot be read (it is missing).", at_most=MIB)

# Some templates put today's date before every question. A measurement must not depend on its day, so it is this one.
TEMPLATE_DATE = datetime.date(2025, 1, 1)
# Where a tokenizer has no token for a letter and none for unknown letters, it drops the letter. Its account of which
# letters those were is rough, so what is held is half.
MIN_LETTERS_KEPT = 0.5
_CALL_FOR_TODAY = re.compile(r"""strftime_now\s*\(\s*(?:format\s*=\s*)?(["'])(.*?)\1\s*\)""")
# Decoders join a token with few of those before it: a character has at most four bytes.
TOKENS_OF_CONTEXT = 5
# What is asked to see how a template puts a question. It must not occur in a template's own words.
_PROBE = "Which of these is a loaf: xqj or jqx?"


class Chat:
    """Questions and answers in the words of a tokenizer's chat template. Without a template, a question stays as it is.

    Raises:
        SourceError: the tokenizer has several chat templates and none called "default", or its template asks for
            today's date in a way that cannot be replaced. Or the template does not put a question once and whole.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.template = _template(tokenizer)
        """The Jinja template, in which today is always :data:`TEMPLATE_DATE`, or None."""
        if self.template is not None:
            try_template(self.template, tokenizer, origin(tokenizer))
            if asks_for_today(self.template):
                raise SourceError(
                    f"{origin(tokenizer)}: its chat template asks for today's date in a way that cannot be replaced, "
                    "so answers would depend on the day. Write a date into the template (chat_template.jinja)."
                )
            if (end := tokenizer.eos_token) and self._prompt(_PROBE).endswith(end):
                remark(
                    f"{origin(tokenizer)}: its chat template ends a question with an end of text ({end}). Answers "
                    "begin behind it, as in the template's own conversations."
                )

    def tokens(self, question: Asked) -> list[int]:
        """Return the tokens of *question*, up to where the answer begins or, with a prefill, goes on.

        Raises:
            SourceError: the template does not put this question as it is.
        """
        question = as_sent(question)
        if isinstance(question, Conversation):
            prompt = self._dialogue.prompt(question)
            return self.plain(prompt) if self.template is None else self._encoded(prompt, special=False)
        if self.template is None:
            return self.plain(question)
        try:
            prompt = self._prompt(question)
        except Exception as error:  # a template may raise any kind of error
            reason = (str(error).splitlines() or [""])[0]
            raise SourceError(
                f"{origin(self._tokenizer)}: its chat template cannot put the question {question[:60]!r} "
                f"({type(error).__name__}: {reason}). Mend the template, or remove the question."
            ) from error
        if question.strip() not in prompt:
            raise SourceError(
                f"{origin(self._tokenizer)}: its chat template changes the question {question[:60]!r}. Mend the "
                "template, or remove the question."
            )
        return self._encoded(prompt, special=False)

    def prompt(self, question: Asked) -> str:
        """Return the text of which :meth:`tokens` are the tokens, less what a tokenizer puts around any text."""
        question = as_sent(question)
        if isinstance(question, Conversation):
            return self._dialogue.prompt(question)
        return question if self.template is None else self._prompt(question)

    def begun(self, question: Asked) -> str:
        """Return what the answer begins with behind :attr:`opening`: the end of a thought, and the prefill."""
        if isinstance(question, str) or not question.prefill:
            return ""
        return self._dialogue.begun(question)

    @functools.cached_property
    def _dialogue(self) -> Dialogue:
        return Dialogue(self._tokenizer, self.template)

    def plain(self, text: str) -> list[int]:
        """Return the tokens of *text* without the template, and without an end of text behind them."""
        tokens = self._encoded(text, special=True)
        return tokens[: len(tokens) - self._appended]

    def _encoded(self, text: str, *, special: bool) -> list[int]:
        """Return the tokens of *text*, with the *special* tokens that the tokenizer puts around any text or without.

        Raises:
            SourceError: the tokenizer has no tokens for the letters of *text*, and drops them.
        """
        fast = self._tokenizer.is_fast  # only then it tells which letters a token stands for
        encoded = self._tokenizer(text, add_special_tokens=special, return_offsets_mapping=fast)
        letters = {at for at, character in enumerate(text) if character.isalnum()}
        kept = {at for start, end in encoded["offset_mapping"] for at in range(start, end)} if fast else letters
        if len(letters & kept) < MIN_LETTERS_KEPT * len(letters):
            raise SourceError(
                f"{self._tokenizer.name_or_path}: its tokenizer has no tokens for most letters of {text[-60:]!r}, and "
                "drops them. Remove this text, or get the tokenizer that the model was trained with."
            )
        return list(encoded["input_ids"])

    @functools.cached_property
    def _appended(self) -> int:
        """How many tokens the tokenizer puts behind any text. No answer begins behind an end of text."""
        bare, whole = (list(self._tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (False, True))
        if not bare:
            return 0
        before = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), len(whole))
        appended = whole[before + len(bare) :]
        if appended:
            remark(
                f"{self._tokenizer.name_or_path}: its tokenizer puts {self._tokenizer.decode(appended)!r} behind every "
                "text. It is left off, so that an answer can begin there."
            )
        return len(appended)

    @functools.cached_property
    def opening(self) -> str:
        """The thought with which the template begins every answer, from its marker on, or an empty string."""
        if self.template is None:
            return ""
        return open_thought(self._prompt(_PROBE).rpartition(_PROBE)[2])

    @property
    def marks_thoughts(self) -> bool:
        """Whether the template begins a thought, or the vocabulary has a token that marks one."""
        return bool(self.opening) or self._knows_markers

    @functools.cached_property
    def _knows_markers(self) -> bool:
        return bool(marker_tokens(self._tokenizer.get_vocab()))

    def text(self, tokens: Sequence[int], prompt: Sequence[int] = (), begun: str = "") -> str:
        """Return the text of an answer's *tokens*. Of the special tokens, it keeps those that mark thoughts.

        Args:
            prompt: what the model read before them.
            begun: the words at the end of the prompt that belong to the answer.
        """
        if not begun and self._markers.keys().isdisjoint(tokens):
            return self._decoded(tokens).strip()
        runs = [(marker, list(run)) for marker, run in itertools.groupby(tokens, self._markers.get)]
        pieces = [marker * len(run) if marker else self._decoded(run) for marker, run in runs]
        if begun and runs and not runs[0][0]:
            pieces[0] = self._behind(prompt, runs[0][1])
        return (begun + "".join(pieces)).strip()

    def _behind(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """Return the text of *tokens* behind those of *prompt*. Alone, a decoder may leave out their first space."""
        context = list(prompt[-TOKENS_OF_CONTEXT:])
        before, whole = self._decoded(context), self._decoded([*context, *tokens])
        return whole[len(before) :] if whole.startswith(before) else self._decoded(tokens)

    @functools.cached_property
    def drops_first_space(self) -> bool:
        """Whether words lose the space before them where they are decoded alone, as with SentencePiece."""
        first, both = (list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("a", "a loaf"))
        return both[: len(first)] == first and not self._decoded(both[len(first) :]).startswith(" ")

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    @property
    def _added(self) -> Mapping[int, Any]:
        """The tokens that the tokenizer looks for in a text before it divides the rest."""
        added: Mapping[int, Any] = self._tokenizer.added_tokens_decoder
        return added

    @functools.cached_property
    def _markers(self) -> dict[int, str]:
        """The special tokens that mark thoughts: decoding would leave them out."""
        special = {at: token.content for at, token in self._added.items() if token.special}
        special |= dict(zip(self._tokenizer.all_special_ids, self._tokenizer.all_special_tokens, strict=True))
        markers = marker_tokens(special.values())
        return {at: text for at, text in special.items() if text.strip() in markers}

    def end(self, ends: Collection[int]) -> int | None:
        """Return the one of *ends* that the template puts after an answer, or the tokenizer's end of text."""
        end_of_text: int | None = self._tokenizer.eos_token_id
        if self.template is None:
            return end_of_text
        try:
            yes, no = (
                self._tokenizer.apply_chat_template(
                    [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}],
                    chat_template=self.template,
                    return_dict=True,
                )["input_ids"]
                for answer in ("Yes", "No")
            )
        except Exception:  # a template may refuse answers, and may raise any kind of error
            return end_of_text
        # What stands behind an answer is what two conversations with different answers end with.
        behind = list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(yes[::-1], no[::-1], strict=False)))
        return next((token for token, _ in behind[::-1] if token in ends), end_of_text)

    def _prompt(self, question: str) -> str:
        """Return *question* in the template's words, up to where the answer begins."""
        prompt: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            chat_template=self.template,
            add_generation_prompt=True,
            tokenize=False,
        )
        return prompt


def _template(tokenizer: Any) -> str | None:
    """Return the tokenizer's chat template with a fixed date in place of plain calls for today's, or None."""
    if not tokenizer.chat_template:
        return None
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as error:
        raise SourceError(
            f"{tokenizer.name_or_path}: has chat templates named {', '.join(tokenizer.chat_template)}, and none is "
            "called default. Keep the one to ask with, as chat_template.jinja."
        ) from error
    return _CALL_FOR_TODAY.sub(lambda call: json.dumps(TEMPLATE_DATE.strftime(call[2])), template)


def read_template(file: Path) -> str:
    """Read a chat template from *file*.

    Raises:
        SourceError: the file cannot be read, or is empty.
    """
    template = _TEMPLATE.text(file)
    if not template.strip():
        raise SourceError(f"{file}: this chat template is empty.")
    return template
