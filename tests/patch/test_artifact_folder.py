"""The folder of an artifact: whole and true, or refused with what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from safety_harness.errors import ArtifactError
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.patch.apply import State, apply, verify
from safety_harness.patch.folder import MANIFEST, ORIGINAL, PATCH, SUMS, open_artifact, sums
from safety_harness.search.write_patch import build
from tests.artifacts import Made, patch_of


def test_the_sums_are_what_sha256sum_checks(folder: Path) -> None:
    """Expect the standard tool to accept the folder as it is."""
    assert os.waitstatus_to_exitcode(os.system(f"cd {folder} && sha256sum --strict --status --check SHA256SUMS")) == 0
    assert {path.name for path in folder.iterdir()} == {MANIFEST, PATCH, ORIGINAL, "README.md", "ml-bom.cdx.json", SUMS}


@pytest.mark.parametrize("name", [MANIFEST, PATCH, ORIGINAL, SUMS])
@pytest.mark.parametrize("damage", ["removed", "cut", "changed"])
def test_a_damaged_artifact_is_not_opened(folder: Path, name: str, damage: str) -> None:
    """Expect an error for each file that is removed, cut or changed."""
    file = folder / name
    if damage == "removed":
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else data[:-9] + b"!" + data[-8:])
    with pytest.raises(ArtifactError, match=r"artifact again|missing|SHA256SUMS"):
        open_artifact(folder)


def resum(folder: Path) -> None:
    """Write checksums that fit the folder as it is, as somebody does who means harm."""
    (folder / SUMS).write_text(sums(folder))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("schema_version",), 2, "schema version 2, but this version reads 1"),
        (("entries", 0, "tensor"), "../../etc/passwd", "holds nothing for '../../etc/passwd'"),
        (("entries", 0, "tensor"), "a\nb", "String should match pattern"),
        (("entries", 0, "before"), "abc", "entries.0.before"),
        (("entries", 1, "indices"), "5-2", "indices must ascend"),
        (("entries", 1, "indices"), "0-999999999", "indices must ascend, each below"),
        (("entries", 1, "indices"), None, "needs an `axis` of the tensor and `indices`"),
        (("entries", 1, "axis"), 7, "needs an `axis` of the tensor and `indices`"),
        (("entries", 0, "indices"), "1", "neither `axis` nor `indices`"),
        (("entries", 0, "shape"), [32, 10**9], "and the manifest F32 [32, 1000000000]"),
        (("entries", 1, "shape"), [10**9, 0], "greater than or equal to 1"),
        (("entries",), [0] * 100_000, "entries.0"),
        (("student", "files", "../../etc/passwd"), "0" * 64, "student.files"),
        (("student", "files", "x" * 300), "0" * 64, "student.files"),
        (("student", "files", ".."), "0" * 64, "student.files"),
        (("student", "files", "a\\b"), "0" * 64, "student.files"),
        (("student", "files", "another_folder/default.jinja"), "0" * 64, "student.files"),
        (("student", "files", "/additional_chat_templates/default.jinja"), "0" * 64, "student.files"),
        (("student", "files", "additional_chat_templates/.."), "0" * 64, "student.files"),
        (("student", "files", "additional_chat_templates/../config.json"), "0" * 64, "student.files"),
        (("student", "files", "additional_chat_templates/"), "0" * 64, "student.files"),
        (("lineage",), {"x": 1}, "lineage.median"),
        (("entries", 0, "dtype"), "BF16", "and the manifest BF16"),
        (("total_parameters",), 0, "greater than 0"),
        (("search", "found"), "perhaps", "search.found"),
        (("extra",), 1, "unknown key"),
    ],
)
def test_a_manifest_that_lies_is_refused(folder: Path, path: tuple[Any, ...], value: Any, said: str) -> None:
    """Expect an error that names the file and the wrong value."""
    table = json.loads((folder / MANIFEST).read_text())
    inner = table
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    (folder / MANIFEST).write_text(json.dumps(table))
    resum(folder)
    with pytest.raises(ArtifactError) as caught:
        open_artifact(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["._config.json", "config (1).json", "été.txt", "additional_chat_templates/tools.jinja"]
)
def test_any_name_of_a_file_next_to_the_weights_is_recorded(
    made: Callable[..., Made], tmp_path: Path, name: str
) -> None:
    """Expect the hash of the file in the manifest, whatever the file is called."""
    first = made()
    (first.student / name).parent.mkdir(exist_ok=True)
    (first.student / name).write_text("{}", encoding="utf-8")
    evaluator = open_evaluator(first.evaluator.student)
    again = build(evaluator, patch_of(evaluator, first.units), tmp_path / "again")
    assert again.manifest.student.files[name] == hashlib.sha256(b"{}").hexdigest()
    assert verify(again, first.student).state is State.CLEAN


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema_version": 1, "schema_version": 1}', "'schema_version' stands there twice"),
        ('{"schema_version": NaN}', "NaN is no number"),
        ('{"schema_version": 1e999}', "1e999 is too large a number"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "schema version None"),
        ("", "cannot be read as JSON"),
    ],
)
def test_what_is_no_json_object_is_refused(folder: Path, text: str, said: str) -> None:
    """Expect an error with what is wrong of each text that is not one sound JSON object."""
    (folder / MANIFEST).write_text(text)
    resum(folder)
    with pytest.raises(ArtifactError) as caught:
        open_artifact(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize("line", ["0" * 64 + "  ../x", "0" * 64, "x" * 64 + "  patch.safetensors", "\u00e9"])
def test_sums_that_name_other_places_are_refused(folder: Path, line: str) -> None:
    """Expect an error with the number of the line."""
    with (folder / SUMS).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    with pytest.raises(ArtifactError, match=r"SHA256SUMS(, line 6: not one checksum|: cannot be read)"):
        open_artifact(folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_refused(folder: Path, number: float) -> None:
    """Expect an error that advises against use."""
    tensors = load_file(folder / PATCH)
    tensors[open_artifact(folder).manifest.entries[1].tensor].view(-1)[5] = number
    save_file(tensors, folder / PATCH)
    resum(folder)
    with pytest.raises(ArtifactError, match=r"holds a NaN or an infinity\. Do not use it"):
        open_artifact(folder)


def test_numbers_that_are_not_the_manifests_are_refused(folder: Path, made_once: Made, tmp_path: Path) -> None:
    """Expect an error, and nothing written, where the patch would not make the tensor of the manifest."""
    tensors = load_file(folder / PATCH)
    tensors[made_once.artifact.manifest.entries[1].tensor].view(-1)[5] += 1
    save_file(tensors, folder / PATCH)
    resum(folder)
    with pytest.raises(ArtifactError, match="would not become what the manifest says"):
        apply(open_artifact(folder), made_once.student, tmp_path / "out")
    assert not (tmp_path / "out").exists()
