"""A patch on disk: there whole or not at all, and found again by everything that could change it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safety_harness.errors import DataError, HarnessError
from safety_harness.gate.records import Patch
from safety_harness.patch import record as patches
from safety_harness.patch.record import content_key, load_patch, patch_folder, recorded, save_patch
from tests.samples import results_with
from tests.samples import whole_patch as patch

PARTS: dict[str, Any] = {"student": "a" * 64, "prompts": {"harmful": "b" * 64}, "settings": {"target_share": 0.9}}


def test_a_patch_survives_the_disk(tmp_path: Path) -> None:
    save_patch(patch(), tmp_path / "p")
    assert load_patch(tmp_path / "p") == patch()


def test_a_kept_patch_is_readable_json(tmp_path: Path) -> None:
    save_patch(patch(), tmp_path / "p")
    assert [file.name for file in (tmp_path / "p").iterdir()] == ["patch.json"]
    table = json.loads((tmp_path / "p" / "patch.json").read_text())
    assert table["units"] == ["1.gate", "2.down"]
    assert table["certificate"] == {"1.gate": "tested", "2.down": "untested"}


def test_a_patch_without_units_survives_as_well(tmp_path: Path) -> None:
    save_patch(patch(units=(), certificate={}, found=False), tmp_path / "p")
    assert load_patch(tmp_path / "p") == patch(units=(), certificate={}, found=False)


def test_a_patch_of_an_older_cache_is_read(tmp_path: Path) -> None:
    """Call the file manifest.json, as version 752297c did: it is read as it is, and a new patch.json wins over it."""
    save_patch(patch(), tmp_path / "p")
    (tmp_path / "p" / "patch.json").rename(tmp_path / "p" / "manifest.json")
    assert load_patch(tmp_path / "p") == patch()
    (tmp_path / "p" / "patch.json").write_text(patch(probes=77).model_dump_json())
    assert load_patch(tmp_path / "p") == patch(probes=77)


def test_no_patch_is_none_and_no_error(tmp_path: Path) -> None:
    assert load_patch(tmp_path / "p") is None


def test_a_failure_while_writing_leaves_no_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patch, "model_dump_json", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_patch(patch(), tmp_path / "p")
    assert load_patch(tmp_path / "p") is None
    assert list(tmp_path.iterdir()) == []


DAMAGE: dict[str, Callable[[str], str]] = {
    "cut short": lambda text: text[: len(text) // 2],
    "empty": lambda _: "",
    "not a table": lambda _: "[]",
    "a field misspelt": lambda text: text.replace('"probes"', '"probe"'),
    "an unknown certificate": lambda text: text.replace('"tested"', '"inferred"'),
    "a wrong type": lambda text: text.replace('"minimal": false', '"minimal": "perhaps"'),
}


@pytest.mark.parametrize("name", ["patch.json", "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_patch_says_what_to_delete(tmp_path: Path, damage: Callable[[str], str], name: str) -> None:
    save_patch(patch(), tmp_path / "p")
    file = (tmp_path / "p" / "patch.json").rename(tmp_path / "p" / name)
    file.write_text(damage(file.read_text()))
    with pytest.raises(HarnessError, match=rf"{name}: not a whole patch \(.*\)\. Delete .*/p to search again"):
        load_patch(tmp_path / "p")


def test_a_damaged_patch_names_the_field(tmp_path: Path) -> None:
    save_patch(patch(), tmp_path / "p")
    file = tmp_path / "p" / "patch.json"
    file.write_text(DAMAGE["a wrong type"](file.read_text()))
    with pytest.raises(HarnessError, match=r"\(minimal: Input should be a valid boolean.* \(given: 'perhaps'\)\)\."):
        load_patch(tmp_path / "p")


def test_a_patch_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        patch().minimal = True  # type: ignore[misc]


def test_share_is_of_the_students_parameters() -> None:
    assert patch().share == 256 / 4096


def test_the_key_does_not_depend_on_the_order_of_its_parts() -> None:
    assert content_key(PARTS) == content_key(dict(reversed(PARTS.items())))


@pytest.mark.parametrize(
    "other",
    [
        {**PARTS, "student": "c" * 64},
        {**PARTS, "prompts": {"harmful": "c" * 64}},
        {**PARTS, "prompts": {"harmless": "b" * 64}},
        {**PARTS, "settings": {"target_share": 0.91}},
        {**PARTS, "dtype": "float32"},
        {key: value for key, value in PARTS.items() if key != "prompts"},
    ],
)
def test_the_key_tells_every_part(other: dict[str, Any]) -> None:
    assert content_key(other) != content_key(PARTS)


def test_a_new_version_of_the_search_has_new_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_key(PARTS)
    monkeypatch.setattr(patches, "ALGORITHM", patches.ALGORITHM + 1)
    assert content_key(PARTS) != before


def test_patches_lie_in_the_cache_by_key(cache: Path) -> None:
    assert patch_folder("k") == cache / "patches" / "k"


def test_a_results_file_records_whole_patches(tmp_path: Path) -> None:
    whole = patch()
    about = {"patch": {**whole.model_dump(mode="json"), "share": whole.share}, "identity": {"student": "f00"}}
    file = results_with(tmp_path / "results.json", {"alpha/one": about, "alpha/two": {}})
    assert {name: (one.patch, one.identity) for name, one in recorded(file).items()} == {
        "alpha/one": (whole, {"student": "f00"})
    }


def test_a_patch_that_is_recorded_in_part_is_no_patch(tmp_path: Path) -> None:
    facts = patch().model_dump(mode="json")
    file = results_with(tmp_path / "results.json", {"alpha/one": {"patch": facts}})
    table = json.loads(file.read_text())
    table["students"][0]["about"]["patch"]["units"] = 7
    file.write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"results.json: .* students\.0\.about\.patch\.units: .* Run the suites"):
        recorded(file)
    with pytest.raises(DataError, match=r"gone.json: cannot be read"):
        recorded(tmp_path / "gone.json")
