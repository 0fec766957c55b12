"""A checkpoint folder is read lazily and never trusted: damage is named, pickles are never opened."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from safety_harness.errors import SourceError
from safety_harness.models.load import load
from safety_harness.weights.checkpoint import Checkpoint
from tests.builders import make_model, make_pair, make_tokenizer, save

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
Pairs = Callable[[str, bool], tuple[Path, Path]]


@pytest.fixture
def folder(pairs: Pairs, tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(pairs("llama", True)[0], tmp_path / "model"))


@pytest.fixture(scope="module")
def whole_and_sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("shards")
    model, tokenizer = make_model("llama"), make_tokenizer()
    return save(model, tokenizer, root / "whole"), save(model, tokenizer, root / "sharded", shard="20KB")


def test_sharded_and_single_hold_the_same(whole_and_sharded: tuple[Path, Path]) -> None:
    whole, sharded = map(Checkpoint, whole_and_sharded)
    assert len(list(sharded.folder.glob("*.safetensors"))) > 3
    assert dict(whole.shapes) == dict(sharded.shapes)
    assert whole.parameters == sharded.parameters
    for name in whole.shapes:
        assert torch.equal(whole.tensor(name), sharded.tensor(name))
    one, other = load(whole.folder, "float32").model, load(sharded.folder, "float32").model
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("architecture", ["llama", "gemma"])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_the_models_own_count(pairs: Pairs, architecture: str, tied: bool) -> None:
    checkpoint = Checkpoint(pairs(architecture, tied)[0])
    model = load(checkpoint.folder, "float32").model
    assert checkpoint.parameters == sum(p.numel() for p in model.parameters())  # shared ones come once
    assert ("lm_head.weight" in checkpoint.shapes) is not tied
    assert checkpoint.model_type == architecture


def cut(file: Path, count: int) -> None:
    file.write_bytes(file.read_bytes()[:-count])


def retype(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def without(file: Path, name: str) -> None:
    tensors = load_file(file)
    del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "one byte short": (lambda f: cut(f / FILE, 1), FILE),
    "half a header": (lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:200]), FILE),
    "garbage": (lambda f: (f / FILE).write_bytes(b"\x93NUMPY" * 100), FILE),
    "empty file": (lambda f: (f / FILE).write_bytes(b""), FILE),
    "no weights": (lambda f: (f / FILE).unlink(), "holds no .safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "bad JSON": (lambda f: retype(f / "config.json", '{"model_type": '), "config.json"),
    "config is a list": (lambda f: retype(f / "config.json", "[]"), "config.json"),
    "config is not text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json"),
    "no folder": (lambda f: shutil.rmtree(f), "no such model folder"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_when_the_folder_is_opened(folder: Path, case: str) -> None:
    spoil, named = DAMAGE[case]
    spoil(folder)
    with pytest.raises(SourceError, match=re.escape(named)) as caught:
        Checkpoint(folder)
    assert str(folder) in str(caught.value)


SHARD_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (lambda f: sorted(f.glob("*.safetensors"))[2].unlink(), "missing, though the index"),
    "short shard": (lambda f: cut(sorted(f.glob("*.safetensors"))[2], 1), "model-00003-of"),
    "index without a map": (lambda f: retype(f / INDEX, "{}"), INDEX),
    "index with a list": (lambda f: retype(f / INDEX, '{"weight_map": ["a"]}'), INDEX),
    "index cut short": (lambda f: cut(f / INDEX, 9), INDEX),
}


@pytest.mark.parametrize("case", SHARD_DAMAGE)
def test_a_damaged_shard_is_named(whole_and_sharded: tuple[Path, Path], tmp_path: Path, case: str) -> None:
    folder = Path(shutil.copytree(whole_and_sharded[1], tmp_path / "model"))
    spoil, named = SHARD_DAMAGE[case]
    spoil(folder)
    with pytest.raises(SourceError, match=re.escape(named)):
        Checkpoint(folder)


class _Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt", "w.pkl"])
def test_a_pickle_is_refused_and_never_opened(folder: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "was-unpickled"
    (folder / FILE).unlink()
    (folder / name).write_bytes(pickle.dumps(_Bomb(mark)))
    for attempt in (Checkpoint, lambda path: load(path, "float32")):
        with pytest.raises(SourceError, match="pickle"):
            attempt(folder)
    assert not mark.exists()
    pickle.loads((folder / name).read_bytes())
    assert mark.exists()  # the bomb was live


def test_pickles_next_to_safetensors_are_left_alone(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was-unpickled"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(mark)))
    load(folder, "float32")
    assert not mark.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_refused(folder: Path, bad: float) -> None:
    tensors = load_file(folder / FILE)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = bad
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    checkpoint = Checkpoint(folder)
    checkpoint.tensor("model.layers.0.mlp.up_proj.weight")
    with pytest.raises(SourceError, match=r"layers\.1\.mlp\.up_proj\.weight.*NaN"):
        checkpoint.tensor("model.layers.1.mlp.up_proj.weight")


def test_fingerprint_is_of_everything_that_decides_an_answer(folder: Path, tmp_path: Path) -> None:
    original = Checkpoint(folder).fingerprint
    assert Checkpoint(Path(shutil.copytree(folder, tmp_path / "elsewhere"))).fingerprint == original
    (folder / "notes.md").write_text("read me")
    assert Checkpoint(folder).fingerprint == original
    raw = bytearray((folder / FILE).read_bytes())
    raw[-1] ^= 1
    seen = {original}
    for name, content in {
        FILE: bytes(raw),
        "config.json": (folder / "config.json").read_bytes().replace(b"1e-06", b"1e-05"),
        "tokenizer.json": (folder / "tokenizer.json").read_bytes() + b"\n",
        "generation_config.json": b'{"eos_token_id": 9}',
        "chat_template.jinja": b"{{ 'other' }}",
    }.items():
        before = (folder / name).read_bytes()
        assert before != content, name
        (folder / name).write_bytes(content)
        fingerprint = Checkpoint(folder).fingerprint
        assert fingerprint not in seen, name
        seen.add(fingerprint)
        (folder / name).write_bytes(before)
    assert Checkpoint(folder).fingerprint == original


UNLOADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a tensor is missing": (
        lambda f: without(f / FILE, "model.layers.2.mlp.up_proj.weight"),
        r"lacks the tensor 'model\.layers\.2\.mlp\.up_proj\.weight'",
    ),
    "unknown architecture": (lambda f: retype(f / "config.json", '{"model_type": "zork"}'), "zork"),
    "no architecture": (lambda f: retype(f / "config.json", "{}"), "cannot load"),
    "wrong type in config": (
        lambda f: retype(f / "config.json", '{"model_type": "llama", "hidden_size": "x"}'),
        "hidden_size",
    ),
    "tokenizer missing": (lambda f: (f / "tokenizer.json").unlink(), "cannot load its tokenizer"),
    "tokenizer cut short": (lambda f: cut(f / "tokenizer.json", 50), "cannot load"),
    "tokenizer empty": (lambda f: retype(f / "tokenizer.json", "{}"), "cannot load"),
}


@pytest.mark.parametrize("case", UNLOADABLE)
def test_load_names_the_folder_that_it_cannot_load(folder: Path, case: str) -> None:
    spoil, message = UNLOADABLE[case]
    spoil(folder)
    with pytest.raises(SourceError, match=message) as caught:
        load(folder, "float32")
    assert str(folder) in str(caught.value)


def test_a_sharded_checkpoint_holds_what_its_index_names(tmp_path: Path) -> None:
    """Compare the tensors of a sharded teacher with the folder's index."""
    student, teacher = make_pair(tmp_path, "gemma2", shard="20KB")
    index = json.loads((teacher / INDEX).read_text())["weight_map"]
    assert set(Checkpoint(teacher).shapes) == set(index)
    assert not any(torch.equal(Checkpoint(student).tensor(name), Checkpoint(teacher).tensor(name)) for name in index)
