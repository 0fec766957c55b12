"""A model folder that programs read differently is refused, and the error says which two things it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from safety_harness.errors import LineageError, Remark, SourceError
from safety_harness.models.load import load
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint, check_shapes
from tests.builders import make_model, make_tokenizer, save

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make_model("llama"), make_tokenizer(), tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A checkpoint in one file."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture
def sharded(folder: Path) -> Path:
    """A checkpoint in two files and their index."""
    tensors = load_file(folder / FILE)
    (folder / FILE).unlink()
    names = sorted(tensors)
    half = len(names) // 2
    home = {name: FIRST if name in names[:half] else SECOND for name in names}
    for file in (FIRST, SECOND):
        write(folder / file, {name: tensors[name] for name in names if home[name] == file})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": home}))
    return folder


def write(file: Path, tensors: State) -> None:
    save_file(tensors, file, metadata={"format": "pt"})


def change(file: Path, **changes: object) -> None:
    """Set or (with None) remove keys of a JSON file."""
    table = {**(json.loads(file.read_text()) if file.exists() else {}), **changes}
    file.write_text(json.dumps({key: value for key, value in table.items() if value is not None}))


def home(folder: Path, **changes: str | None) -> None:
    """Change the files of tensors in an index."""
    table = {**json.loads((folder / INDEX).read_text())["weight_map"], **changes}
    change(folder / INDEX, weight_map={name: file for name, file in table.items() if file})


def add(file: Path, **tensors: torch.Tensor) -> None:
    write(file, {**load_file(file), **tensors})


ONE = torch.ones(2)
WHOLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "an index of newer shards": (
        lambda f: (add_shard(f), change(f / INDEX, weight_map={"x": "model-00001-of-00001.safetensors"})),
        rf"{FILE} holds the weights, and {INDEX} names model-00001-of-00001",
    ),
    "an index of one tensor less": (
        lambda f: change(f / INDEX, weight_map=dict.fromkeys(sorted(load_file(f / FILE))[1:], FILE)),
        rf"{INDEX} says that .* is in no file, and it lies in {FILE}",
    ),
    "nothing but consolidated weights": (
        lambda f: (f / FILE).rename(f / "consolidated.safetensors"), "consolidated.* neither model"
    ),
    "another precision": (lambda f: write(f / "model.fp16.safetensors", {"a": ONE}), r"fp16\.safetensors holds others"),
    "shards without an index": (lambda f: add_shard(f), "model-00001-of-00001.*holds others"),
    "adapter weights": (lambda f: write(f / "adapter_model.safetensors", {"a": ONE}), "adapter_model.*holds others"),
    "an adapter": (lambda f: change(f / "adapter_config.json", peft_type="LORA"), "and an adapter on them"),
    "other weights named": (
        lambda f: change(f / "config.json", transformers_weights="b.safetensors"), "names the weights 'b.safetensors'"
    ),
    "weights of another name": (lambda f: (f / FILE).rename(f / "weights.safetensors"), "weights.* neither model"),
    "a template twice": (
        lambda f: change(f / "tokenizer_config.json", chat_template="{{ 'old' }}"), "hold different chat templates"
    ),
    "templates twice": (
        lambda f: change(f / "tokenizer_config.json", chat_template=[{"name": "default", "template": "{{ 'old' }}"}]),
        "hold different chat templates",
    ),
    "a default template that wins": (lambda f: further(f, "default", "{{ 'old' }}"), "hold different chat templates"),
    "a default template and another in the settings": (
        lambda f: (
            (f / "chat_template.jinja").unlink(), further(f, "default", "{{ 'a' }}"),
            change(f / "tokenizer_config.json", chat_template="{{ 'b' }}"),
        ),
        "default.jinja and tokenizer_config.json hold different chat templates",
    ),
    "three templates, of which the last differs": (
        lambda f: (
            further(f, "default", (f / "chat_template.jinja").read_text()),
            change(f / "tokenizer_config.json", chat_template="{{ 'b' }}"),
        ),
        "default.jinja and tokenizer_config.json hold different chat templates",
    ),
    "a key twice": (
        lambda f: (f / "config.json").write_text('{"rope_theta": 1, ' + (f / "config.json").read_text().lstrip()[1:]
                                                 .replace('"model_type"', '"rope_theta": 2, "model_type"')),
        "the key 'rope_theta' stands there twice",
    ),
}  # fmt: skip


def further(folder: Path, name: str, template: str) -> None:
    """Add a chat template where transformers looks for further ones."""
    (folder / "additional_chat_templates").mkdir(exist_ok=True)
    (folder / "additional_chat_templates" / f"{name}.jinja").write_text(template)


def add_shard(folder: Path) -> None:
    write(folder / "model-00001-of-00001.safetensors", {"x": ONE})


@pytest.mark.parametrize("case", WHOLE)
def test_one_file_beside_something_else_is_refused(folder: Path, case: str) -> None:
    spoil, message = WHOLE[case]
    spoil(folder)
    with pytest.raises(SourceError, match=message) as caught:
        Checkpoint(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


SHARDED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a stale whole file": (lambda f: write(f / FILE, {"x": ONE}), f"{FILE} holds .* and {INDEX} names {FIRST}"),
    "a third shard": (lambda f: add_shard(f), "model-00001-of-00001.*holds others"),
    "a tensor in two shards": (lambda f: add(f / SECOND, **load_file(f / FIRST)), "is both in .* and in"),
    "a tensor that the index leaves out": (lambda f: home(f, **{UP: None}), rf"'{UP}' is in no file, and it lies in"),
    "a tensor in another shard": (lambda f: home(f, **{UP: SECOND}), rf"lies in {SECOND}, and it lies in {FIRST}"),
    "an index of nothing": (lambda f: change(f / INDEX, weight_map={}), "has no table `weight_map`"),
    "a shard of an endless name": (lambda f: home(f, **{UP: "x" * 300}), "no file can have the name"),
    "an index named as weights": (
        lambda f: change(f / "config.json", transformers_weights="old.safetensors.index.json"), "names the weights 'old"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SHARDED)
def test_shards_and_index_that_differ_are_refused(sharded: Path, case: str) -> None:
    spoil, message = SHARDED[case]
    spoil(sharded)
    with pytest.raises(SourceError, match=message):
        Checkpoint(sharded)


def test_what_says_one_thing_twice_is_read(folder: Path, tmp_path: Path) -> None:
    """Read an index of one file (as mlx writes it), `transformers_weights` of that file, and harmless neighbours."""
    names = list(load_file(folder / FILE))
    change(folder / INDEX, weight_map=dict.fromkeys(names, FILE))
    change(folder / "config.json", transformers_weights=INDEX)
    change(folder / "tokenizer_config.json", chat_template=(folder / "chat_template.jinja").read_text() + "\n")
    further(folder, "default", (folder / "chat_template.jinja").read_text())
    further(folder, "tool_use", "{{ 'a tool' }}")
    (folder / "original").mkdir()
    write(folder / "original" / "consolidated.safetensors", {"a": ONE})
    (folder / "._model.safetensors").write_bytes(b"left by a file system")
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    assert list(Checkpoint(linked).shapes) == sorted(names)
    change(folder / "config.json", transformers_weights=FILE)
    assert Checkpoint(linked).parameters
    change(folder / "config.json", transformers_weights=None)
    load(folder, "float32")


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_ends_of_lines_make_no_other_template(folder: Path, end: str) -> None:
    """Save a template as an editor for Windows does, in a file, which is read as text, and in JSON, which is not."""
    template = f"{{% for m in messages %}}{end}{{{{ m.content }}}}{end}{{% endfor %}}"
    (folder / "chat_template.jinja").write_bytes(template.encode())
    change(folder / "tokenizer_config.json", chat_template=template)
    assert Checkpoint(folder).parameters


@pytest.mark.parametrize("kind", ["folder", "sharded"])
@pytest.mark.parametrize("names", [["consolidated"], ["consolidated-00001-of-00002", "consolidated-00002-of-00002"]])
def test_consolidated_weights_are_passed_over(request: pytest.FixtureRequest, kind: str, names: list[str]) -> None:
    """Read a whole repository of Mistral, which holds the weights twice, and say which of them count."""
    folder: Path = request.getfixturevalue(kind)
    before = Checkpoint(folder).shapes
    for name in names:
        write(folder / f"{name}.safetensors", {"a": ONE})
    with pytest.warns(Remark, match=rf"{names[0]}\.safetensors: is passed over"):
        assert Checkpoint(folder).shapes == before
    add_shard(folder)
    with pytest.raises(SourceError, match=r"model-00001-of-00001.*holds others"):
        Checkpoint(folder)


@pytest.mark.parametrize("head", ["lm_head.weight", "model.layers.9.mlp.up_proj.weight"])
def test_an_index_may_name_what_no_file_needs_to_hold(sharded: Path, head: str) -> None:
    """Read the index of the hub's converter, which names a tied head, and one with a layer that the model lacks."""
    home(sharded, **{head: FIRST})
    assert load(sharded, "float32").checkpoint.shapes.keys().isdisjoint({head})


@pytest.mark.parametrize("lost", [UP, "model.norm.weight", "model.embed_tokens.weight"])
def test_a_tensor_that_is_in_the_index_alone_is_missing(sharded: Path, lost: str) -> None:
    for file in (sharded / FIRST, sharded / SECOND):
        write(file, {name: tensor for name, tensor in load_file(file).items() if name != lost})
    with pytest.raises(SourceError, match=rf"lacks the tensor '({lost}|lm_head\.weight)'"):
        load(sharded, "float32")


def test_a_teacher_lacks_what_is_in_its_index_alone(whole: Path, sharded: Path) -> None:
    """Read a teacher by its headers alone, as before anything is loaded."""
    write(sharded / FIRST, {name: tensor for name, tensor in load_file(sharded / FIRST).items() if name != UP})
    student = Checkpoint(whole)
    with pytest.raises(LineageError, match=f"holds no tensor '{UP}'"):
        check_shapes(student, Checkpoint(sharded), enumerate_units(student.config, student.shapes))


def test_an_untied_head_in_the_index_alone_is_missing(sharded: Path) -> None:
    change(sharded / "config.json", tie_word_embeddings=False)
    home(sharded, **{"lm_head.weight": FIRST})
    with pytest.raises(SourceError, match=r"lacks the tensor 'lm_head\.weight'"):
        load(sharded, "float32")


def test_an_index_may_leave_out_what_is_computed(sharded: Path) -> None:
    add(sharded / FIRST, **{"model.layers.0.self_attn.rotary_emb.inv_freq": ONE})
    assert Checkpoint(sharded).parameters


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool]
)
def test_packed_numbers_are_told_by_their_dtype(folder: Path, dtype: torch.dtype) -> None:
    """Store one projection packed, without scales and without a word in config.json."""
    tensors = load_file(folder / FILE)
    add(folder / FILE, **{UP: tensors[UP].to(dtype)})
    with pytest.raises(SourceError, match=rf"is quantised \('{UP}' is stored as \w+\).* patch that, and quantise"):
        Checkpoint(folder)


@pytest.mark.parametrize("part", ["text_config", "thinker_config"])
def test_a_part_that_is_quantised_is_refused(folder: Path, part: str) -> None:
    change(folder / "config.json", **{part: {"quantization_config": {"quant_method": "awq"}}})
    with pytest.raises(SourceError, match=r"is quantised \(awq\)"):
        Checkpoint(folder)


def test_a_mask_of_bits_is_no_quantised_weight(folder: Path) -> None:
    add(folder / FILE, **{"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool)})
    assert Checkpoint(folder).parameters
    add(folder / FILE, **{"gpt_neox.layers.0.attention.bias": torch.ones(4, dtype=torch.uint8)})
    with pytest.raises(SourceError, match="stored as U8"):
        Checkpoint(folder)


def test_further_templates_and_vocabularies_are_fingerprinted(folder: Path) -> None:
    seen = {Checkpoint(folder).fingerprint}
    (folder / "additional_chat_templates").mkdir()
    for name in ("additional_chat_templates/tools.jinja", "tokenizer.model.v3", "qwen.tiktoken", "merges.txt"):
        (folder / name).write_text("one")
        seen.add(Checkpoint(folder).fingerprint)
        (folder / name).write_text("two")
        seen.add(Checkpoint(folder).fingerprint)
    assert len(seen) == 9
