"""Say how each guard is asked and read: the rows of ``guards.toml``."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from safety_harness.errors import ConfigError, did_you_mean
from safety_harness.registry.judges import Axis


class _Table(BaseModel):
    """A table of the file, which means every key that it has."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Line(_Table):
    """One value that is read. ``guards.toml`` says what the keys mean."""

    begin: str
    axis: Axis | None = None
    free: int = Field(0, ge=0)
    values: Mapping[str, float] = Field(min_length=2)

    def behind(self, text: str) -> str:
        """Return *text* with what stands in front of the value behind it."""
        blank = not self.begin.strip() and text.endswith(self.begin)
        return text if blank else text + self.begin


class Form(_Table):
    """How a guard is asked and read."""

    source: str
    prompt: Literal["chat", "file"]
    arguments: Mapping[str, Any] = {}
    lines: tuple[Line, ...]


@functools.cache
def forms() -> Mapping[str, Form]:
    """Return every row by its name."""
    raw = resources.files(__package__).joinpath("guards.toml").read_text(encoding="utf-8")
    return {name: Form.model_validate(row) for name, row in tomllib.loads(raw).items()}


def form_of(name: str, judge: str) -> Form:
    """Return the row *name*.

    Raises:
        ConfigError: there is none of this name. The message names the *judge* that asks for it.
    """
    known = forms()
    if name not in known:
        raise ConfigError(
            f"judge {judge!r}: `form` is {name!r}, and the forms are {', '.join(known)}.{did_you_mean(name, known)}"
        )
    return known[name]
