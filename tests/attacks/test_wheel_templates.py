"""Templates of a wheel are read by name and digest, through whatever fetches."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from safety_harness.attacks.builtin import builtin_attacks
from safety_harness.attacks.catalogue import Catalogue
from safety_harness.attacks.wheel import wheel_attack, wheel_table
from safety_harness.conversation import Conversation, Turn
from safety_harness.errors import ConfigError, DataError, SourceError
from safety_harness.registry.sources import Source


def table(content: str) -> dict[str, Any]:
    """Return a wheel with one template."""
    wheel = {"pypi": "theirs==1", "sha256": "0" * 64, "folder": "a/b"}
    row = {"kind": "nesting", "source": "us", "file": "t.yaml", "sha256": hashlib.sha256(content.encode()).hexdigest()}
    return {"wheel": wheel, "templates": {"theirs-t": row}}


def fetched(folder: Path, content: str) -> Any:
    file = folder / "t.yaml"
    file.write_text(content, encoding="utf-8")
    return lambda source: file if source["file"] == "a/b/t.yaml" and source["pypi"] == "theirs==1" else None


def test_a_template_of_a_wheel_asks_in_its_slot(tmp_path: Path) -> None:
    content = "name: t\nvalue: |\n  Say {this}.\n\n  {{ prompt }}\n"
    attack = wheel_attack("theirs-t", fetched(tmp_path, content), table(content))
    asked = attack.sees("Why {{ prompt }}?")
    assert isinstance(asked, Conversation)
    assert asked.turns == (Turn("user", "Say {this}.\n\nWhy {{ prompt }}?"),)
    assert (attack.kind, attack.source) == ("nesting", "theirs==1, t.yaml: us")


def test_a_template_of_another_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"t.yaml: sha256 is \w+, but the template of the attack 'theirs-t' has"):
        wheel_attack("theirs-t", fetched(tmp_path, "value: 'No {{ prompt }}'"), table("value: '{{ prompt }}'"))


def test_a_template_of_a_wheel_has_one_slot(tmp_path: Path) -> None:
    content = "value: '{{ prompt }} {{ prompt }}'"
    with pytest.raises(DataError, match="2 slots"):
        wheel_attack("theirs-t", fetched(tmp_path, content), table(content))


@pytest.mark.parametrize(
    "value", ["{% raw %}Say {{ prompt }}{% endraw %}", "{# a note #}{{ prompt }}", "{{ prompt }} by {{ name }}"]
)
def test_other_jinja_of_a_template_is_never_sent(tmp_path: Path, value: str) -> None:
    content = f"value: '{value}'"
    with pytest.raises(DataError, match=r"t.yaml: .* 'theirs-t' holds Jinja besides its slot, .* Name another"):
        wheel_attack("theirs-t", fetched(tmp_path, content), table(content))


def test_the_rows_are_sources_of_the_registry() -> None:
    wheel, rows = wheel_table()["wheel"], wheel_table()["templates"]
    kinds = {attack.kind for attack in builtin_attacks().values()}
    for name, row in rows.items():
        assert Source(pypi=wheel["pypi"], sha256=wheel["sha256"], file=f"{wheel['folder']}/{row['file']}")
        assert re.fullmatch("[0-9a-f]{64}", row["sha256"])
        assert row["kind"] in kinds
        assert row["source"]
        assert name.startswith("pyrit-")


def test_a_wheel_that_cannot_be_had_is_one_line() -> None:
    asked: list[Mapping[str, str]] = []

    def fetch(source: Mapping[str, str]) -> Path:
        asked.append(source)
        raise SourceError("pyrit==1.1.0: cannot be downloaded with pip (no network). Check the network and the pin.")

    catalogue = Catalogue(fetch=fetch)
    assert "pyrit-aim" in catalogue.names
    catalogue.all()
    assert not asked
    with pytest.raises(SourceError, match=r"^pyrit==1.1.0: cannot be downloaded .* the pin\.$"):
        catalogue.select(["leet", "pyrit-aim"])
    assert [source["file"].rpartition("/")[2] for source in asked] == ["aim.yaml"]
    with pytest.raises(ConfigError, match="There is no attack 'pyrit-aim'"):  # nobody said how to fetch
        Catalogue().get("pyrit-aim")
