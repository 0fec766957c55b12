"""Write plain tables as TOML, which Python can only read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def value_text(value: Any) -> str:
    """Return *value* in TOML, a table in one line. A text in JSON is one in TOML, too, but for the character DEL."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key_text(key)} = {value_text(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def key_text(name: str) -> str:
    """Return *name* as a key of TOML."""
    return name if _BARE.fullmatch(name) else value_text(name)


def document_text(table: Mapping[str, Any], path: tuple[str, ...] = (), depth: int = 4) -> str:
    """Return *table* as a TOML document, with a heading for each table down to *depth* and one line for each deeper."""
    plain = {key: value for key, value in table.items() if not (isinstance(value, Mapping) and len(path) < depth)}
    lines = [f"[{'.'.join(map(key_text, path))}]"] if path and (plain or not table) else []
    lines += [f"{key_text(key)} = {value_text(value)}" for key, value in plain.items()]
    parts = ["\n".join([*lines, ""])] if lines else []
    parts += [document_text(value, (*path, key), depth) for key, value in table.items() if key not in plain]
    return "\n".join(parts)
