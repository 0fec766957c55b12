"""The manifest of an artifact: earlier files are read as they are, and its evidence is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safety_harness.errors import ArtifactError
from safety_harness.gate.numbers import Defense, Numbers
from safety_harness.gate.records import Refused
from safety_harness.patch.card import card
from safety_harness.patch.manifest import read_manifest

# Written by an earlier version, then shortened.
EARLIER = Path(__file__).parent / "manifest-schema-1.json"


def changed(folder: Path, check: str, numbers: dict[str, Any]) -> Path:
    """Write the earlier manifest to *folder*, with other *numbers* of one check."""
    table = json.loads(EARLIER.read_text(encoding="utf-8"))
    table["gate"]["checks"][check] = {"outcome": "pass", "summary": "measured", "numbers": numbers}
    file = folder / "manifest.json"
    file.write_text(json.dumps(table), encoding="utf-8")
    return file


def test_an_earlier_manifest_is_read_and_written_unchanged() -> None:
    """Expect every value of the file in the record, and in what is written of it."""
    manifest = read_manifest(EARLIER)
    assert json.loads(manifest.model_dump_json()) == json.loads(EARLIER.read_text(encoding="utf-8"))
    assert manifest.gate is not None
    defense = manifest.gate.checks["defense"].numbers
    assert isinstance(defense, Defense)
    assert (defense.before, defense.after, defense.n, defense.improvement_required) == (0, 119, 128, True)
    assert manifest.gate.teacher.harmful == Refused(
        refused=126, n=128, interval=[0.9448190233201829, 0.9957045502898559]
    )
    assert "0/128 (0.00–0.03) before, 119/128 (0.87–0.96) after." in card(manifest)


def test_a_suites_own_check_is_kept_and_has_no_rates(tmp_path: Path) -> None:
    """Expect the numbers of an unknown check as they are, and a card without the rates that nobody measured."""
    manifest = read_manifest(changed(tmp_path, "speed", {"tokens_per_second": 7.5}))
    assert manifest.gate is not None
    assert manifest.gate.checks["speed"].numbers == Numbers.model_validate({"tokens_per_second": 7.5})
    manifest = read_manifest(changed(tmp_path, "defense", {"improvement_required": False}))
    assert "Refused of the harmful questions" not in card(manifest)


@pytest.mark.parametrize("numbers", [{"n": "many"}, {"after": 1.5}, {"p_improvement": 2}, {"before_interval": [0.1]}])
def test_numbers_that_no_check_has_are_refused(tmp_path: Path, numbers: dict[str, Any]) -> None:
    """Expect an error that names the check and the number."""
    with pytest.raises(ArtifactError, match=rf"the numbers of 'defense': {next(iter(numbers))}"):
        read_manifest(changed(tmp_path, "defense", numbers))
