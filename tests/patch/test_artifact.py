"""A patch on disk is the patch in memory: put in, told from what it is not, and taken out, byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from safety_harness.errors import ArtifactError, HarnessError, SourceError
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.gate.records import Patch
from safety_harness.patch import apply as place
from safety_harness.patch.apply import State, Verified, apply, revert, verify
from safety_harness.patch.compare import Difference, compare
from safety_harness.patch.export import mergekit, peft_adapter
from safety_harness.patch.folder import MANIFEST, ORIGINAL, PATCH, SUMS, Artifact, open_artifact, sums
from safety_harness.registry.load import Student
from safety_harness.search.write_patch import build
from safety_harness.weights.units import Unit, cut, group_id
from tests.builders import ARCHITECTURES, make_pair
from tests.refusal_world import HARMFUL, HARMLESS, TASK, TEXT, entry, write_prompts
from tests.samples import SEARCH, results_with

Bits = dict[str, bytes]


@dataclass(frozen=True)
class Made:
    """An artifact, the evaluator that it was made on, what it moves, and the folders of student and teacher."""

    artifact: Artifact
    evaluator: Evaluator
    units: tuple[Unit, ...]
    student: Path
    teacher: Path


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("questions")
    for name, texts in {"harmful": HARMFUL, "harmless": HARMLESS, "task": tuple(TASK), "text": TEXT}.items():
        write_prompts(root / f"{name}.search.jsonl", texts[::2])
        write_prompts(root / f"{name}.report.jsonl", texts[1::2])
    return root


@pytest.fixture
def made(tmp_path: Path, questions: Path) -> Callable[..., Made]:
    """An artifact of a pair of random models, of some whole modules and some channels."""

    def make(
        architecture: str = "llama",
        *,
        tied: bool = True,
        shard: str = "1GB",
        bare: bool = False,
        seed: int = 0,
        dtype: str = "float32",
        whole: bool = False,
        name: str = "patch",
        **options: Any,
    ) -> Made:
        root = tmp_path / architecture
        pair = root / "student", root / "teacher"
        if not root.exists():
            make_pair(root, architecture, tied=tied, shard=shard, bare=bare)
        evaluator = open_evaluator(entry(questions, student=str(pair[0]), teacher=str(pair[1]), dtype=dtype))
        units = some_units(evaluator, seed, whole=whole)
        artifact = build(evaluator, patch_of(evaluator, units), tmp_path / name, **options)
        return Made(artifact, evaluator, units, *pair)

    return make


def some_units(evaluator: Evaluator, seed: int, *, whole: bool = False) -> tuple[Unit, ...]:
    """A third of the modules, and of all but one of them some channels."""
    rng = random.Random(seed)
    modules = sorted(rng.sample(evaluator.units, len(evaluator.units) // 3))
    if whole:
        return tuple(modules)
    return (modules[0], *(cut(unit, rng.sample(range(unit.width), 3)) for unit in modules[1:]))


def patch_of(evaluator: Evaluator, units: Sequence[Unit], **changes: Any) -> Patch:
    ids = tuple(group_id((unit,)) for unit in units)
    facts: dict[str, Any] = {
        "key": "k", "student": evaluator.student.id, "teacher": "t", "found": True, "reason": "found", "units": ids,
        "certificate": dict.fromkeys(ids, "tested"), "minimal": True, "probes": 9, "seconds": 1.5,
        "parameters": sum(unit.parameters for unit in units), "total_parameters": evaluator.checkpoint.parameters,
        "candidates": 21, "strategy": "adaptive", "prior": "contrast", "grain": "channel", "together": "module",
        "transfer": "replace", "search": SEARCH,
    }  # fmt: skip
    return Patch(**{**facts, **changes})


def bits(folder: Path) -> Bits:
    """The bytes of every tensor of a checkpoint, as torch reads them."""
    tensors = {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
    return {name: value.contiguous().view(torch.uint8).numpy().tobytes() for name, value in tensors.items()}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- disk and memory agree ------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["1GB", "30KB"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_applied_loads_as_the_model_that_was_measured_and_reverts_to_the_student(
    made: Callable[..., Made], tmp_path: Path, architecture: str, tied: bool, shard: str
) -> None:
    made_ = made(architecture, tied=tied, shard=shard)
    assert (len(list(made_.student.glob("*.safetensors"))) > 1) == (shard == "30KB")
    before = files(made_.student)
    assert apply(made_.artifact, made_.student, tmp_path / "out") == ()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with made_.evaluator.transplanter.transplanted(made_.units):
        expected = made_.evaluator.generator.model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    moving = {entry.tensor for entry in made_.artifact.manifest.entries}
    assert {name for name, value in bits(tmp_path / "out").items() if value != bits(made_.student)[name]} == moving
    assert verify(made_.artifact, tmp_path / "out") == Verified(State.APPLIED)
    revert(made_.artifact, tmp_path / "out", tmp_path / "again", made_.student)
    assert files(tmp_path / "again") == before == files(made_.student)


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_published_without_its_head_is_patched_as_well(
    made: Callable[..., Made], tmp_path: Path, whole: bool
) -> None:
    """GPT-2's own files: their names lack what the loaded model's begin with, and all units of a fused tensor move."""
    made_ = made("gpt2", bare=True, whole=whole)
    every = build(made_.evaluator, patch_of(made_.evaluator, made_.evaluator.units), tmp_path / "every")
    assert all(entry.tensor.startswith("h.") for entry in every.manifest.entries)
    for artifact, units in ((made_.artifact, made_.units), (every, made_.evaluator.units)):
        out = tmp_path / f"out-{len(units)}"
        apply(artifact, made_.student, out)
        loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        with made_.evaluator.transplanter.transplanted(units):
            expected = made_.evaluator.generator.model.state_dict()
            assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("seed", range(6))
def test_any_units_move_exactly_their_own_numbers(made: Callable[..., Made], tmp_path: Path, seed: int) -> None:
    made_ = made("qwen2", seed=seed, keep_original=True)
    apply(made_.artifact, made_.student, tmp_path / "out")
    own, teacher, out = (load_file(f / "model.safetensors") for f in (made_.student, made_.teacher, tmp_path / "out"))
    for unit in made_.units:
        for spot in (part.disk for part in unit.parts):
            axis, channels = max(spot.axis, 0), torch.tensor(unit.channels or range(spot.shape[spot.axis]))
            own[spot.name].index_copy_(axis, channels, teacher[spot.name].index_select(axis, channels))
    assert all(torch.equal(value, own[name]) for name, value in out.items())
    revert(made_.artifact, tmp_path / "out", tmp_path / "again")  # without the student
    assert files(tmp_path / "again") == files(made_.student)


def test_what_was_measured_in_bfloat16_is_written_as_it_was_measured(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made(dtype="bfloat16")
    apply(made_.artifact, made_.student, tmp_path / "out")
    assert {entry.dtype for entry in made_.artifact.manifest.entries} == {"F32"}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    with made_.evaluator.transplanter.transplanted(made_.units):
        expected = made_.evaluator.generator.model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_a_number_that_the_students_dtype_cannot_hold_is_an_error(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    half = {name: value.half() for name, value in load_file(made_.student / "model.safetensors").items()}
    save_file(half, made_.student / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"was measured in torch\.float32, but the student stores torch\.float16"):
        made(name="other")
    assert not (tmp_path / "other").exists()


# --- telling what a model is ----------------------------------------------------------------------


def test_each_state_is_told_from_the_others(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made(shard="30KB")
    assert verify(made_.artifact, made_.student).state is State.CLEAN
    apply(made_.artifact, made_.student, tmp_path / "out")
    partly = shutil.copytree(tmp_path / "out", tmp_path / "partly")
    touched = next(file for file in sorted(partly.glob("*.safetensors")) if file.read_bytes() != own(made_, file))
    shutil.copyfile(made_.student / touched.name, touched)
    found = verify(made_.artifact, partly)
    assert found.state is State.PARTLY
    assert set(found.unapplied) < {entry.tensor for entry in made_.artifact.manifest.entries}
    with pytest.raises(ArtifactError, match=r"partly: holds a part of this patch, but not .*Revert it first"):
        apply(made_.artifact, partly, tmp_path / "twice")
    revert(made_.artifact, partly, tmp_path / "again", made_.student)
    assert files(tmp_path / "again") == files(made_.student)
    with pytest.raises(ArtifactError, match="holds this patch already"):
        apply(made_.artifact, tmp_path / "out", tmp_path / "twice")
    with pytest.raises(ArtifactError, match="does not hold this patch"):
        revert(made_.artifact, made_.student, tmp_path / "twice", made_.student)
    assert not (tmp_path / "twice").exists()


def own(made_: Made, file: Path) -> bytes:
    return (made_.student / file.name).read_bytes()


def test_a_foreign_model_is_refused_with_what_first_differs(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    tensors = load_file(made_.student / "model.safetensors")
    untouched = sorted(made_.artifact.manifest.rest)[0]
    cases = {
        f"{untouched} has other numbers": {**tensors, untouched: tensors[untouched] + 1},
        "it has a tensor 'zzz' more": {**tensors, "zzz": torch.ones(2)},
        f"it has no tensor {untouched!r}": {name: value for name, value in tensors.items() if name != untouched},
    }
    entry_ = made_.artifact.manifest.entries[0]
    cases[f"{entry_.tensor} has sha256"] = {**tensors, entry_.tensor: tensors[entry_.tensor] + 1}
    cases[f"{entry_.tensor} is BF16"] = {**tensors, entry_.tensor: tensors[entry_.tensor].bfloat16()}
    other = shutil.copytree(made_.student, tmp_path / "other")
    for said, changed in cases.items():
        save_file(changed, other / "model.safetensors", metadata={"format": "pt"})
        found = verify(made_.artifact, other)
        assert found.state is State.FOREIGN, said
        assert found.foreign.startswith(said)
        with pytest.raises(ArtifactError, match="is not the model that the patch was made for"):
            apply(made_.artifact, other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_student_in_other_shards_is_the_same_student(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made(shard="30KB")
    other = tmp_path / "whole"
    AutoModelForCausalLM.from_pretrained(made_.student, dtype=torch.float32).save_pretrained(other)
    assert verify(made_.artifact, other).state is State.CLEAN
    apply(made_.artifact, other, tmp_path / "out")
    assert verify(made_.artifact, tmp_path / "out").state is State.APPLIED


def test_a_changed_chat_template_is_said(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    apply(made_.artifact, made_.student, tmp_path / "out")
    out = tmp_path / "out"
    (out / "chat_template.jinja").write_text("{{ 'ignore all rules' }}")
    (out / "adapter_config.json").write_text("{}")  # transformers would look for an adapter
    (out / "generation_config.json").unlink()
    others = ("adapter_config.json", "chat_template.jinja", "generation_config.json")
    assert verify(made_.artifact, out) == Verified(State.APPLIED, beside=others)


def test_one_tensor_in_two_shards_is_refused(made: Callable[..., Made], tmp_path: Path) -> None:
    """transformers takes the one in the last file, whatever the index says."""
    made_ = made(shard="30KB")
    twice = shutil.copytree(made_.student, tmp_path / "twice")
    first, second = sorted(twice.glob("*.safetensors"))[:2]
    save_file({**load_file(second), **load_file(first)}, second, metadata={"format": "pt"})
    with pytest.raises(SourceError, match="Which of them a loader takes is chance"):
        verify(made_.artifact, twice)


# --- what is written, and what is not -------------------------------------------------------------


def test_other_copies_of_the_weights_are_left_out(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    others = {"pytorch_model.bin", "consolidated.safetensors", "model.Q4.gguf", "tf_model.h5", "flax_model.msgpack",
              "onnx/model.onnx", "pytorch_model.bin.index.json"}  # fmt: skip
    (made_.student / "onnx").mkdir()
    for name in others:
        (made_.student / name).write_bytes(b"unpatched")
    (made_.student / "onnx" / "notes.txt").write_text("kept")
    left_out = apply(made_.artifact, made_.student, tmp_path / "out")
    assert set(left_out) == others
    assert files(made_.student).keys() - files(tmp_path / "out").keys() == set(left_out)


def test_a_hub_cache_is_never_written_through_nor_linked_into(made: Callable[..., Made], tmp_path: Path) -> None:
    """Its snapshots are links to files that other models share."""
    made_ = made(shard="30KB")
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    snapshot.mkdir()
    shutil.copytree(made_.student, blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    before = files(blobs)
    apply(made_.artifact, snapshot, tmp_path / "out", link=True)
    assert files(blobs) == before
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert all(path.stat().st_nlink == 1 for path in (*blobs.iterdir(), *(tmp_path / "out").iterdir()))


def test_links_spare_the_disk_what_does_not_change(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made(shard="30KB")
    apply(made_.artifact, made_.student, tmp_path / "out", link=True)
    apply(made_.artifact, made_.student, tmp_path / "copied")
    assert files(tmp_path / "out") == files(tmp_path / "copied")
    for path in (tmp_path / "out").iterdir():
        linked = path.suffix == ".safetensors" and not touched(made_, path)  # what may be edited in place is copied
        assert path.stat().st_nlink == (2 if linked else 1), path.name


def touched(made_: Made, file: Path) -> bool:
    moving = {entry.tensor for entry in made_.artifact.manifest.entries}
    return bool(moving & load_file(file).keys())


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_broken_off_in_the_middle_nothing_is_there(
    made: Callable[..., Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    made_ = made()
    calls = []

    def flush(file: Path) -> None:
        calls.append(file)
        raise fault

    monkeypatch.setattr(place, "_flush", flush)
    with pytest.raises((HarnessError, KeyboardInterrupt)):
        apply(made_.artifact, made_.student, tmp_path / "deep" / "out")
    assert calls
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_disk_that_writes_something_else_is_caught(
    made: Callable[..., Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_ = made()
    monkeypatch.setattr(place.Stored, "write", lambda *_: None)
    with pytest.raises(ArtifactError, match="was not written as it should be"):
        apply(made_.artifact, made_.student, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_into_the_model_or_over_anything(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made(whole=True)
    before = files(made_.student)
    with pytest.raises(ArtifactError, match=r"lies in .*, which is never changed"):
        apply(made_.artifact, made_.student, made_.student / "patched")
    taken = tmp_path / "taken"
    taken.mkdir()
    for write in (
        lambda out: apply(made_.artifact, made_.student, out),
        lambda out: peft_adapter(made_.artifact, made_.student, out),
        lambda out: mergekit(made_.artifact, made_.student, made_.teacher, out),
        lambda out: build(made_.evaluator, patch_of(made_.evaluator, made_.units), out),
    ):
        for out in (taken, made_.student / "config.json"):
            with pytest.raises(HarnessError, match=r"exists|lies in"):
                write(out)
    assert list(taken.iterdir()) == []
    assert files(made_.student) == before


def test_an_index_that_leads_elsewhere_is_refused(made: Callable[..., Made], tmp_path: Path) -> None:
    """Its shard would be written over where it lies."""
    made_ = made()
    linked = tmp_path / "linked"
    shutil.copytree(made_.student, linked)
    shutil.move(linked / "model.safetensors", tmp_path / "shared.safetensors")
    names = made_.evaluator.checkpoint.shapes
    for home in ("../shared.safetensors", str(tmp_path / "shared.safetensors"), "x/../../shared.safetensors"):
        (linked / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, home)}))
        with pytest.raises(SourceError, match="names a file in another place"):
            apply(made_.artifact, linked, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- the artifact itself --------------------------------------------------------------------------


def test_the_sums_are_what_sha256sum_checks(made: Callable[..., Made]) -> None:
    folder = made(keep_original=True).artifact.folder
    assert os.waitstatus_to_exitcode(os.system(f"cd {folder} && sha256sum --strict --status --check SHA256SUMS")) == 0
    assert {path.name for path in folder.iterdir()} == {MANIFEST, PATCH, ORIGINAL, "README.md", SUMS}


@pytest.mark.parametrize("name", [MANIFEST, PATCH, ORIGINAL, SUMS])
@pytest.mark.parametrize("damage", ["removed", "cut", "changed"])
def test_a_damaged_artifact_is_not_opened(made: Callable[..., Made], name: str, damage: str) -> None:
    file = made(keep_original=True).artifact.folder / name
    if damage == "removed":
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else data[:-9] + b"!" + data[-8:])
    with pytest.raises(ArtifactError, match=r"artifact again|missing|SHA256SUMS"):
        open_artifact(file.parent)


def resum(folder: Path) -> None:
    """As somebody does who means harm."""
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
        (("lineage",), {"x": 1}, "lineage.median"),
        (("entries", 0, "dtype"), "BF16", "and the manifest BF16"),
        (("total_parameters",), 0, "greater than 0"),
        (("search", "found"), "perhaps", "search.found"),
        (("extra",), 1, "Extra inputs are not permitted"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    made: Callable[..., Made], path: tuple[Any, ...], value: Any, said: str
) -> None:
    folder = made().artifact.folder
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


@pytest.mark.parametrize("name", ["._config.json", "config (1).json", "été.txt"])
def test_whatever_a_file_beside_the_weights_is_called_it_is_recorded(
    made: Callable[..., Made], tmp_path: Path, name: str
) -> None:
    first = made()
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
def test_what_is_no_json_object_is_refused(made: Callable[..., Made], text: str, said: str) -> None:
    folder = made().artifact.folder
    (folder / MANIFEST).write_text(text)
    resum(folder)
    with pytest.raises(ArtifactError) as caught:
        open_artifact(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize("line", ["0" * 64 + "  ../x", "0" * 64, "x" * 64 + "  patch.safetensors", "\u00e9"])
def test_sums_that_name_other_places_are_refused(made: Callable[..., Made], line: str) -> None:
    folder = made().artifact.folder
    with (folder / SUMS).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    with pytest.raises(ArtifactError, match=r"SHA256SUMS(, line 4: not one checksum|: cannot be read)"):
        open_artifact(folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_refused(made: Callable[..., Made], number: float) -> None:
    made_ = made()
    tensors = load_file(made_.artifact.folder / PATCH)
    tensors[made_.artifact.manifest.entries[1].tensor].view(-1)[5] = number
    save_file(tensors, made_.artifact.folder / PATCH)
    resum(made_.artifact.folder)
    with pytest.raises(ArtifactError, match=r"holds a NaN or an infinity\. Do not use it"):
        open_artifact(made_.artifact.folder)


def test_numbers_that_are_not_those_of_the_manifest_are_refused(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    tensors = load_file(made_.artifact.folder / PATCH)
    tensors[made_.artifact.manifest.entries[1].tensor].view(-1)[5] += 1
    save_file(tensors, made_.artifact.folder / PATCH)
    resum(made_.artifact.folder)
    with pytest.raises(ArtifactError, match="would not become what the manifest says"):
        apply(open_artifact(made_.artifact.folder), made_.student, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_evidence_of_other_units_is_refused(made: Callable[..., Made], tmp_path: Path) -> None:
    """On another processor the same search, of the same key, may find others."""
    evaluator = made().evaluator
    units = some_units(evaluator, 1)
    about = {"patch": patch_of(evaluator, units[1:]).model_dump(mode="json"), "identity": evaluator.identity()}
    results = results_with(tmp_path / "results.json", {evaluator.student.id: about})
    with pytest.raises(ArtifactError, match=r"is no evidence for this patch: it tells of another patch"):
        build(evaluator, patch_of(evaluator, units), tmp_path / "gated", results=results)
    assert not (tmp_path / "gated").exists()
    assert (
        build(evaluator, patch_of(evaluator, units[1:]), tmp_path / "gated", results=results).manifest.gate is not None
    )


@pytest.mark.parametrize("other", ["student", "teacher", "ancestor", "dtype"])
def test_evidence_of_other_numbers_is_refused(made: Callable[..., Made], tmp_path: Path, other: str) -> None:
    evaluator = made().evaluator
    patch = patch_of(evaluator, some_units(evaluator, 1))
    about = {"patch": patch.model_dump(mode="json"), "identity": evaluator.identity() | {other: "another"}}
    results = results_with(tmp_path / "results.json", {evaluator.student.id: about})
    with pytest.raises(ArtifactError, match=rf"was gated with another {other} than today's\. Gate this patch"):
        build(evaluator, patch, tmp_path / "gated", results=results)
    assert not (tmp_path / "gated").exists()


def test_an_empty_patch_makes_no_artifact(made: Callable[..., Made], tmp_path: Path) -> None:
    evaluator = made().evaluator
    with pytest.raises(ArtifactError, match="the patch is empty: all of the teacher is not enough"):
        build(
            evaluator,
            patch_of(evaluator, (), found=False, reason="all of the teacher is not enough"),
            tmp_path / "none",
        )
    assert not (tmp_path / "none").exists()


# --- two patches, and other tools -----------------------------------------------------------------


def test_two_patches_are_compared_channel_by_channel(made: Callable[..., Made], tmp_path: Path) -> None:
    first = made()
    same = made(name="same")
    assert all(found.equal for found in compare(first.artifact, same.artifact))
    evaluator = first.evaluator
    up, down = (unit for unit in evaluator.units if unit.id in ("1.up", "1.down"))
    one = build(evaluator, patch_of(evaluator, (cut(up, [1, 2, 3]), down)), tmp_path / "one")
    two = build(evaluator, patch_of(evaluator, (cut(up, [3, 4]), cut(down, [0]))), tmp_path / "two")
    names = {unit.id: unit.tensors[0] for unit in (up, down)}
    assert set(compare(one, two)) == {
        Difference(names["1.up"], only_first=2, only_second=1, same=1, different=0),
        Difference(names["1.down"], only_first=47, only_second=0, same=1, different=0),
    }
    shutil.rmtree(first.teacher)
    make_pair(tmp_path / "other", "llama")
    shutil.copytree(first.student, first.teacher)
    save_file(
        {name: value * 1.5 for name, value in load_file(first.student / "model.safetensors").items()},
        first.teacher / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    other = build(made(name="unused").evaluator, patch_of(evaluator, (cut(up, [1, 2]),)), tmp_path / "three")
    found = {difference.tensor: difference for difference in compare(one, other)}
    assert found[names["1.up"]] == Difference(names["1.up"], only_first=1, only_second=0, same=0, different=2)
    wider = make_pair(tmp_path / "wider", "llama", intermediate_size=64)
    questions_ = first.evaluator.student
    spec = questions_.spec.model_copy(update={"path": wider[0]})
    family = questions_.family.model_copy(update={"teacher": spec.model_copy(update={"path": wider[1], "task": None})})
    stranger = open_evaluator(Student("wider", family, spec))
    up = next(unit for unit in stranger.units if unit.id == "1.up")
    foreign = build(stranger, patch_of(stranger, (cut(up, [1, 2]),)), tmp_path / "foreign")
    found = {difference.tensor: difference for difference in compare(one, foreign)}
    assert found[names["1.up"]] == Difference(names["1.up"], 0, 0, 0, different=3 * 32)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text", "phi3", "gpt2", "falcon-grouped"])
def test_a_peft_adapter_is_the_patched_model(made: Callable[..., Made], tmp_path: Path, architecture: str) -> None:
    made_ = made(architecture)
    peft_adapter(made_.artifact, made_.student, tmp_path / "adapter")
    apply(made_.artifact, made_.student, tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(made_.student, dtype=torch.float32)
    adapted: Any = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.arange(60).reshape(2, 30) + 5
    with torch.inference_mode():
        assert torch.equal(adapted(input_ids=ids).logits, expected(input_ids=ids).logits)
        merged = adapted.merge_and_unload().state_dict()
    assert all(torch.equal(value, merged[name]) for name, value in expected.state_dict().items())


@pytest.mark.parametrize("architecture", ["mixtral", "gemma3", "gpt2-bare"])
def test_peft_has_no_name_for_what_the_loaded_model_keeps_elsewhere(
    made: Callable[..., Made], tmp_path: Path, architecture: str
) -> None:
    name, _, bare = architecture.partition("-")
    made_ = made(name, bare=bool(bare), seed=1)
    with pytest.raises(ArtifactError, match="PEFT has no name for it"):
        peft_adapter(made_.artifact, made_.student, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_recipe_cannot_say_channels_or_another_teacher(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    with pytest.raises(ArtifactError, match="mergekit moves whole tensors"):
        mergekit(made_.artifact, made_.student, made_.teacher, tmp_path / "recipe.yml")
    units = some_units(made_.evaluator, 0, whole=True)
    added = build(made_.evaluator, patch_of(made_.evaluator, units, transfer="add"), tmp_path / "added")
    mergekit(added, made_.student, made_.teacher, tmp_path / "fine.yml")  # here the teacher's numbers moved after all
    with pytest.raises(ArtifactError, match=r"what the patch moves is not what .*student holds"):
        mergekit(added, made_.student, made_.student, tmp_path / "recipe.yml")
    with pytest.raises(ArtifactError, match="is not the model that the patch was made for"):
        mergekit(added, made_.teacher, made_.teacher, tmp_path / "recipe.yml")
    assert not (tmp_path / "recipe.yml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma"])
def test_mergekit_makes_the_patched_model_of_the_recipe(
    made: Callable[..., Made], tmp_path: Path, mergekit_path: Path, architecture: str
) -> None:
    """The values are the same; -0.0 becomes 0.0 on its way through a sum."""
    made_ = made(architecture, whole=True)
    mergekit(made_.artifact, made_.student, made_.teacher, tmp_path / "recipe.yml")
    apply(made_.artifact, made_.student, tmp_path / "out")
    command = [sys.executable, "-m", "mergekit.scripts.run_yaml", tmp_path / "recipe.yml", tmp_path / "merged"]
    environment = {**os.environ, "PYTHONPATH": str(mergekit_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    assert all(torch.equal(value, merged[name]) for name, value in expected.items())


@pytest.fixture(scope="module")
def mergekit_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mergekit from PyPI, beside the packages that are here already."""
    folder = tmp_path_factory.mktemp("mergekit")
    packages = ["mergekit==0.1.5", "immutables", "sentencepiece", "protobuf"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, *packages]
    subprocess.run(command, check=True, capture_output=True)
    return folder
