"""Check that the tables of docs/scale.md about the cost of fleets are what the code says."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType


def test_tables_of_fleets_are_what_the_code_says(docs_script: Callable[[str], ModuleType]) -> None:
    """Write the page again, in memory, and see that each table has its place."""
    script = docs_script("fleet")
    text = script.FILE.read_text(encoding="utf-8")
    assert text == script.page(text), "write it again: python docs/fleet.py"
    assert [block[2] for block in script.BLOCK.finditer(text)] == ["parts", "fleets", "cores", "alone"]
    assert set(script.TABLES) == {"parts", "fleets", "cores", "alone"}
