"""Check that the tables of docs/attacks.md are what the code says, and that its registries load."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from safety_harness.evaluation.attacks import gate_attacks, search_attacks
from safety_harness.registry.load import Student, load_registry

DOCS = Path(__file__).parents[2] / "docs"
TOML = re.compile(r"```toml\n(.*?)```", re.DOTALL)


def test_tables_of_attacks_are_what_the_code_says(docs_script: Callable[[str], ModuleType]) -> None:
    """Write the page again, in memory, and see that each table has its place."""
    script = docs_script("attacks")
    text = script.FILE.read_text(encoding="utf-8")
    assert text == script.page(text), "write it again: python docs/attacks.py"
    assert [block[2] for block in script.BLOCK.finditer(text)] == ["settings", "rows", "builtin", "pyrit"]
    assert set(script.TABLES) == {"settings", "rows", "builtin", "pyrit"}


@pytest.fixture
def student(tmp_path: Path) -> Callable[[int], Student]:
    """A function that returns the student of README's registry with one more block of docs/attacks.md."""

    def load(number: int) -> Student:
        first = TOML.search((DOCS.parent / "README.md").read_text(encoding="utf-8"))
        assert first
        more = TOML.findall((DOCS / "attacks.md").read_text(encoding="utf-8"))[number]
        for name in re.findall(r'"((?:questions|models|attacks)/[^"]+)"', first[1] + more):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            if path.suffix:
                path.write_text(
                    '{"id": "one", "text": "How? {question}", "answer": "so", "user": "a", "assistant": "b"}\n'
                )
            else:
                path.mkdir(exist_ok=True)
        (tmp_path / "mine.toml").write_text(f"{first[1]}\n{more}", encoding="utf-8")
        (only,) = load_registry(tmp_path / "mine.toml").select()
        return only

    return load


def test_the_kinds_of_the_first_example_are_seven_attacks(student: Callable[[int], Student]) -> None:
    names = [attack.name for attack in gate_attacks(student(0))]
    assert len(names) == 7
    assert {name.partition("-")[0] for name in names} == {"prefill", "persona"}


def test_attacks_of_your_own_are_attacks(student: Callable[[int], Student]) -> None:
    mine = {attack.name: attack for attack in gate_attacks(student(1))}
    assert list(mine) == ["prefill-sure", "in-a-play", "as-a-form"]
    seen = mine["as-a-form"].sees("Why is the sky blue?")
    assert "Why is the sky blue?" in str(seen)
    assert "Field 1:" in str(seen)


def test_the_search_sees_other_attacks_than_the_gate(student: Callable[[int], Student]) -> None:
    """Expect no attack of the search's example in a gate of the first example."""
    searched, gated = search_attacks(student(2)), gate_attacks(student(0))
    assert len(searched) == 3
    assert not {attack.name for attack in searched} & {attack.name for attack in gated}
