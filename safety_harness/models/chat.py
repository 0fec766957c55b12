"""How a model is asked: its tokenizer's chat template, the same on any day, and what that says of the answer."""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from safety_harness.errors import SourceError

# Some templates put today's date before every question; a measurement must not depend on when it is made.
DAY = datetime.date(2025, 1, 1)
_TODAY = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(["'])(.*?)\1\s*\)""")
_THINKING = re.compile(r"<think(?:ing)?>\s*\Z")


class Chat:
    """A tokenizer's way to put a question; without a template, a question is put as it is.

    Raises:
        SourceError: of several chat templates none is called "default", or the template asks for today's date in a way
            that cannot be replaced.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.template = _template(tokenizer)
        """What is asked with: a Jinja template in which any day is :data:`DAY`, or None."""

    def tokens(self, question: str) -> list[int]:
        """The tokens of *question*, up to where the answer begins."""
        if self.template is None:
            return list(self._tokenizer(question)["input_ids"])
        return list(self._put({"role": "user", "content": question}, add_generation_prompt=True)["input_ids"])

    @functools.cached_property
    def opening(self) -> str:
        """What the template itself says of every answer: that it begins with a thought, or nothing."""
        if self.template is None:
            return ""
        said = _THINKING.search(self._put({"role": "user", "content": "?"}, add_generation_prompt=True, tokenize=False))
        return said[0] if said else ""

    def text(self, tokens: Sequence[int]) -> str:
        """What *tokens* of an answer say; with the end of a thought, where the template began it."""
        if self._closing not in tokens:
            return self._decoded(tokens).strip()
        at = tokens.index(self._closing)
        return f"{self._decoded(tokens[:at])}{self._closed}{self._decoded(tokens[at:])}".strip()

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    @property
    def _closed(self) -> str:
        return self.opening.strip().replace("<", "</")

    @functools.cached_property
    def _closing(self) -> int | None:
        """The token that ends a thought, if it is one that decoding leaves out."""
        token: int | None = self._tokenizer.convert_tokens_to_ids(self._closed) if self.opening else None
        return token if token in self._tokenizer.all_special_ids else None

    def end(self, ends: Collection[int]) -> int | None:
        """Which of the tokens that end an answer the template ends one with; else the tokenizer's end of text."""
        usual: int | None = self._tokenizer.eos_token_id
        if self.template is None:
            return usual
        answers = ("Yes", "No")
        try:
            one, other = (
                self._put({"role": "user", "content": "?"}, {"role": "assistant", "content": said})["input_ids"]
                for said in answers
            )
        except Exception:  # one that knows no answers; a template may raise what it likes
            return usual
        behind = list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one[::-1], other[::-1], strict=False)))
        return next((token for token, _ in behind[::-1] if token in ends), usual)

    def _put(self, *turns: dict[str, str], tokenize: bool = True, **how: bool) -> Any:
        return self._tokenizer.apply_chat_template(
            list(turns), chat_template=self.template, tokenize=tokenize, return_dict=tokenize, **how
        )


def _template(tokenizer: Any) -> str | None:
    if not tokenizer.chat_template:
        return None
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as error:
        raise SourceError(
            f"{tokenizer.name_or_path}: has chat templates named {', '.join(tokenizer.chat_template)}, and none is "
            "called default. Keep the one to ask with, as chat_template.jinja."
        ) from error
    undated = _TODAY.sub(lambda said: json.dumps(DAY.strftime(said[2])), template)
    if "strftime_now(" in undated:
        raise SourceError(
            f"{tokenizer.name_or_path}: its chat template asks for today's date in a way that cannot be replaced, so "
            "that answers would depend on the day. Write a date into the template (chat_template.jinja)."
        )
    return undated


def read_template(file: Path) -> str:
    """The chat template in *file*.

    Raises:
        SourceError: it cannot be read, or is empty.
    """
    try:
        template = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file}: this chat template cannot be read ({error}).") from error
    if not template.strip():
        raise SourceError(f"{file}: this chat template is empty.")
    return template
