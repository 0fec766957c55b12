"""A patch that is applied: the model in memory, byte for byte, and taken out again."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from safety_harness.errors import ArtifactError, HarnessError, SourceError
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.patch import apply as place
from safety_harness.patch.apply import State, Verified, apply, revert, verify
from safety_harness.patch.export import mergekit, peft_adapter
from safety_harness.patch.folder import BOM, CARD, MANIFEST
from safety_harness.patch.release import CARRIED
from safety_harness.registry.load import Student
from safety_harness.search.write_patch import build, refuse_unwritable
from tests.artifacts import Made, bits, files, patch_of
from tests.builders import in_turns, make_pair

# --- disk and memory agree ---------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "made_as"), in_turns(*itertools.product((True, False), ("1GB", "30KB"))))
def test_an_applied_patch_loads_as_measured_and_reverts(
    made: Callable[..., Made], tmp_path: Path, architecture: str, made_as: tuple[bool, str]
) -> None:
    """Expect the measured model from disk, and after a revert the student's files, byte for byte."""
    tied, shard = made_as
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
    """Expect it of GPT-2's own files, whose names lack a prefix, also where all units of a fused tensor move."""
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_components_are_written_as_they_were_measured(made: Callable[..., Made], tmp_path: Path, dtype: str) -> None:
    """Apply a patch of three components a module, and revert it."""
    made_ = made("llama", grain="component", dtype=dtype, keep_original=True)
    assert all(unit.rank for unit in made_.units)
    apply(made_.artifact, made_.student, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=getattr(torch, dtype))
    with made_.evaluator.transplanter.transplanted(made_.units):
        expected = made_.evaluator.generator.model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert {entry.operation for entry in made_.artifact.manifest.entries} == {"replace"}
    revert(made_.artifact, tmp_path / "out", tmp_path / "again")
    assert files(tmp_path / "again") == files(made_.student)


def test_a_patch_measured_in_bfloat16_is_written_so(made: Callable[..., Made], tmp_path: Path) -> None:
    """Expect the measured numbers in a checkpoint that stores float32."""
    made_ = made(dtype="bfloat16")
    apply(made_.artifact, made_.student, tmp_path / "out")
    assert {entry.dtype for entry in made_.artifact.manifest.entries} == {"F32"}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    with made_.evaluator.transplanter.transplanted(made_.units):
        expected = made_.evaluator.generator.model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_a_number_that_the_dtype_cannot_hold_is_an_error(made: Callable[..., Made], tmp_path: Path) -> None:
    """Expect an error rather than a rounded patch."""
    made_ = made()
    half = {name: value.half() for name, value in load_file(made_.student / "model.safetensors").items()}
    save_file(half, made_.student / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"is measured in torch\.float32, but the student stores torch\.float16"):
        made(name="other")
    assert not (tmp_path / "other").exists()


def test_sums_that_the_file_cannot_hold_are_refused_before_a_search(made: Callable[..., Made]) -> None:
    made_ = made("llama", grain="component")
    refuse_unwritable(made_.evaluator)
    half = {name: value.bfloat16() for name, value in load_file(made_.student / "model.safetensors").items()}
    save_file(half, made_.student / "model.safetensors", metadata={"format": "pt"})
    student = made_.evaluator.student
    with pytest.raises(ArtifactError, match=r"is measured in torch\.float32, but the student stores torch\.bfloat16"):
        refuse_unwritable(open_evaluator(student))
    family = student.family.model_copy(update={"dtype": "bfloat16"})
    refuse_unwritable(open_evaluator(Student(student.name, family, student.spec)))


# --- what is written, and what is not ---------------------------------------------------------------------------


def test_other_copies_of_the_weights_are_left_out(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    others = {"pytorch_model.bin", "model.Q4.gguf", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx",
              "pytorch_model.bin.index.json", "original/consolidated.safetensors"}  # fmt: skip
    (made_.student / "original").mkdir()
    (made_.student / "onnx").mkdir()
    for name in others:
        (made_.student / name).write_bytes(b"unpatched")
    (made_.student / "onnx" / "notes.txt").write_text("kept")
    left_out = apply(made_.artifact, made_.student, tmp_path / "out")
    assert set(left_out) == others
    assert files(made_.student).keys() - files(tmp_path / "out").keys() == set(left_out)


# By path, what lies in folders of models after training, cloning and editing, and is no part of a release.
LEFT_OUT = {
    ".git/config": ".git", ".git/lfs/objects/aa/bb/aabb0123": ".git", ".cache/huggingface/token": ".cache",
    ".env": ".env", ".netrc": ".netrc", ".gitattributes": ".gitattributes", ".DS_Store": ".DS_Store",
    ".config.json.swp": ".config.json.swp", "config.json~": "config.json~", "config.json.bak": "config.json.bak",
    "#config.json#": "#config.json#", "token": "token", "hf_token.txt": "hf_token.txt", "id_rsa": "id_rsa",
    "credentials.json": "credentials.json", "prod-1234-56ab.json": "prod-1234-56ab.json", "server.pem": "server.pem",
    "Passwords.md": "Passwords.md", "optimizer.pt": "optimizer.pt", "training_args.bin": "training_args.bin",
    "trainer_state.json": "trainer_state.json", "checkpoint-500/README.md": "checkpoint-500",
    "checkpoint-500/optimizer.pt": "checkpoint-500", "wandb/run/files/requirements.txt": "wandb",
    "runs/events.out.tfevents.1.host": "runs", "modeling_own.py": "modeling_own.py", "train.sh": "train.sh",
    "__pycache__/modeling_own.pyc": "__pycache__", "scheduler.pt": "scheduler.pt",
    "consolidated.safetensors": "consolidated.safetensors",
    "lora/adapter_config.json": "lora", "lora/README.md": "lora", "ema.npz": "ema.npz", "weights.zip": "weights.zip",
    "rng_state_0.pth": "rng_state_0.pth", "notes/.git": "notes/.git",
    "original/tokenizer.json": "original/tokenizer.json",
}  # fmt: skip
RELEASED = (
    "README.md", "LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md", "tokenizer.model", "tokenizer.model.v3",
    "merges.txt", "vocab.json", "special_tokens_map.json", "added_tokens.json", "preprocessor_config.json",
    "qwen.tiktoken", "figures/curve.png", "additional_chat_templates/tools.jinja",
)  # fmt: skip

CARRIED_FILES = {f"{CARRIED}/{name}" for name in (MANIFEST, CARD, BOM)}


def test_a_release_holds_what_it_needs_and_names_the_rest(made: Callable[..., Made], tmp_path: Path) -> None:
    """Release a folder with all that training, cloning and editing leave: the gate's files, and documents."""
    student = tmp_path / "llama" / "student"
    make_pair(tmp_path / "llama", "llama")
    own = set(files(student))
    for name in (*LEFT_OUT, *RELEASED):
        (student / name).parent.mkdir(parents=True, exist_ok=True)
        (student / name).write_text("{}")
    (student / "how to clone.md").write_text("git clone https://me:SECRET@models.example/me/model")
    (student / "usage.md").write_text(
        "Send `Bearer YOUR_TOKEN`, use hf_hub_download, clone ssh://git@github.com/me/it."
    )
    made_ = made("llama")
    left_out = apply(made_.artifact, student, tmp_path / "out")
    assert set(left_out) == {*LEFT_OUT.values(), "how to clone.md"}
    assert files(tmp_path / "out").keys() == own | {*RELEASED, "usage.md"} | CARRIED_FILES
    assert verify(made_.artifact, tmp_path / "out") == Verified(State.APPLIED)
    revert(made_.artifact, tmp_path / "out", tmp_path / "again", student)
    assert files(tmp_path / "again").keys() == files(tmp_path / "out").keys() - CARRIED_FILES


def test_links_that_lead_out_of_the_folder_are_not_followed(made: Callable[..., Made], tmp_path: Path) -> None:
    """Expect links to secrets and folders elsewhere to stay behind, and a config that lies elsewhere to be released."""
    made_ = made()
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "id_rsa").write_text("SECRET")
    (made_.student / ".git").mkdir()
    (made_.student / ".git" / "config").write_text("SECRET")
    shutil.move(made_.student / "generation_config.json", secret / "shared.json")
    links = {
        "notes.txt": secret / "id_rsa",
        "more": secret,
        "log.txt": made_.student / ".git" / "config",
        "gone.md": "x",
    }
    for name, target in {**links, "generation_config.json": secret / "shared.json"}.items():
        (made_.student / name).symlink_to(target)
    assert set(apply(made_.artifact, made_.student, tmp_path / "out")) == {*links, ".git"}
    assert not [name for name, raw in files(tmp_path / "out").items() if b"SECRET" in raw]
    assert (tmp_path / "out" / "generation_config.json").is_file()


def test_documents_of_a_hub_cache_are_released(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    shutil.copytree(made_.student, blobs)
    (blobs / "README.md").write_text("a card")
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert apply(made_.artifact, snapshot, tmp_path / "out") == ()
    assert files(tmp_path / "out").keys() == files(blobs).keys() | CARRIED_FILES


def test_a_config_with_a_credential_is_not_released(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    (made_.student / "tokenizer_config.json").write_text('{"name_or_path": "https://me:SECRET@models.example/me"}')
    with pytest.raises(ArtifactError, match=r"tokenizer_config\.json: holds a credential") as raised:
        apply(made_.artifact, made_.student, tmp_path / "out")
    assert "SECRET" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_hub_cache_is_never_written_through_nor_linked_into(made: Callable[..., Made], tmp_path: Path) -> None:
    """Expect the files behind its links, which other models share, to stay as they are."""
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
    written = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert all(path.stat().st_nlink == 1 for path in (*blobs.iterdir(), *written))


def test_links_spare_the_disk_what_does_not_change(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made(shard="30KB")
    apply(made_.artifact, made_.student, tmp_path / "out", link=True)
    apply(made_.artifact, made_.student, tmp_path / "copied")
    assert files(tmp_path / "out") == files(tmp_path / "copied")
    for path in (path for path in (tmp_path / "out").iterdir() if path.is_file()):
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
    """Expect an error: its shard would be written over where it lies."""
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
