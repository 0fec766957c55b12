"""How a model is asked: its tokenizer's chat template, the same on any day, and what that says of the answer."""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Collection
from typing import Any

import jinja2

from safety_harness.errors import SourceError

# Some templates put today's date before every question; a measurement must not depend on when it is made.
DAY = datetime.date(2025, 1, 1)
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_THINKING = re.compile(r"<think(?:ing)?>\s*\Z")


class Chat:
    """A tokenizer's way to put a question; without a template, a question is put as it is.

    Raises:
        SourceError: there are several chat templates, and none is called "default".
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

    def end(self, ends: Collection[int]) -> int | None:
        """Which of the tokens that end an answer the template ends one with; else the tokenizer's end of text."""
        usual: int | None = self._tokenizer.eos_token_id
        if self.template is None:
            return usual
        question = "?"
        try:
            turns = ({"role": "user", "content": question}, {"role": "assistant", "content": "."})
            tokens = self._put(*turns)["input_ids"][len(self.tokens(question)) :]
        except jinja2.TemplateError:  # one that knows no answers
            return usual
        return next((token for token in tokens if token in ends), usual)

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
    return _TODAY.sub(lambda said: json.dumps(DAY.strftime(said[2])), template)
