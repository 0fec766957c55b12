"""Texts that mean harm, and the same run without them."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from safety_harness.registry.sources import ATTACK

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    '=HYPERLINK("http://evil")',
    "+1+cmd|' /C calc'!A0",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe\u2066",
    "a\nb\r::error::forged%0A",
    "]]>&amp;\x00\ufffe",
    "$\\frac{$ \\",
    "{{ 7 * 7 }}{% raw %}",
]


def harmless(value: Any) -> Any:
    """Return *value* with "x" instead of every hostile text, of the same structure otherwise."""
    if isinstance(value, str) and value.startswith(ATTACK):  # a check of this name is of an attack
        return f"{ATTACK}{harmless(value.removeprefix(ATTACK))}"
    if isinstance(value, str):
        bad = value in HOSTILE or any(text in value for text in HOSTILE) or len(value) > 10_000
        return f"x{zlib.crc32(value.encode())}" if bad else value
    if isinstance(value, BaseModel):
        return type(value).model_validate(harmless(value.model_dump()))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: harmless(each) for name, each in vars(value).items()})
    if isinstance(value, dict):
        return {harmless(key): harmless(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(harmless, value))
    return value
