"""Write the tables of docs/attacks.md from the code: ``python docs/attacks.py``. A test holds the two together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from tabulate import tabulate

from safety_harness.attacks.builtin import builtin_attacks
from safety_harness.attacks.wheel import wheel_table
from safety_harness.registry.attacks import AttackRow, Rewrite
from safety_harness.registry.settings import GateSettings, SearchSettings

FILE = Path(__file__).with_name("attacks.md")
BLOCK = re.compile(r"(<!-- (\w+): python docs/attacks.py -->\n).*?(<!-- end -->)", re.DOTALL)
GATE = ("attacks", "attacked_dsr", "attack_tokens", "samples", "temperature")
SEARCH = ("attacks", "attacked_share")


def settings() -> str:
    """Return the table of the settings that are about attacks."""
    rows = [*_rows("gate.", GateSettings, GATE), *_rows("search.", SearchSettings, SEARCH)]
    return _table(rows, ("setting", "default", "meaning"))


def rows() -> str:
    """Return the table of the keys of a row of a registry."""
    every = _rows("", AttackRow, tuple(AttackRow.model_fields))
    choices = ", ".join(f"`{name}`" for name in get_args(Rewrite))
    told = [(*row[:2], f"{row[2]} One of {choices}." if row[0] == "`rewrite`" else row[2]) for row in every]
    return _table(told, ("key", "default", "meaning"))


def builtin() -> str:
    """Return the table of the attacks of the package, kind by kind."""
    every = [(one.kind, f"`{one.name}`", one.source) for one in builtin_attacks().values()]
    return _table(every, ("kind", "attack", "source"))


def pyrit() -> str:
    """Return the table of PyRIT's templates."""
    every = [(one["kind"], f"`{name}`", one["source"]) for name, one in wheel_table()["templates"].items()]
    return _table(every, ("kind", "attack", "source"))


def _rows(prefix: str, model: type[BaseModel], names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return a row for each of these fields of *model*."""
    fields = [(name, model.model_fields[name]) for name in names]
    return [
        (f"`{prefix}{name}`", "" if field.default in (None, ()) else f"`{field.default}`", field.description or "")
        for name, field in fields
    ]


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    """Return a Markdown table; pipes in cells are escaped."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


TABLES = {"settings": settings, "rows": rows, "builtin": builtin, "pyrit": pyrit}


def page(text: str) -> str:
    """Return the *text* of docs/attacks.md with its tables written again."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n\n{block[3]}", text)


if __name__ == "__main__":
    FILE.write_text(page(FILE.read_text(encoding="utf-8")), encoding="utf-8")
