"""A registry entry becomes a model in memory: prepared once, loaded whole, and only next to a relative."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import safety_harness.models.convert as convert
from safety_harness.errors import LineageError, SourceError
from safety_harness.evaluation.preflight import check_local_files
from safety_harness.models.load import load, prepare
from safety_harness.registry.load import load_registry
from safety_harness.registry.schema import ModelSpec
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint, check_shapes
from tests.builders import SEPARATE, make_model, make_tokenizer, save, vary
from tests.samples import write_registry

Pairs = Callable[[str, bool], tuple[Path, Path]]


# --- load ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", SEPARATE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_load_gives_the_checkpoints_numbers_in_the_dtype(pairs: Pairs, architecture: str, dtype: str) -> None:
    loaded = load(pairs(architecture, False)[0], dtype)
    assert not loaded.model.training
    assert next(loaded.model.parameters()).requires_grad  # see load's docstring
    wanted = getattr(torch, dtype)
    for name, parameter in loaded.model.named_parameters():
        assert parameter.dtype == wanted
        assert torch.equal(parameter.cpu(), loaded.checkpoint.tensor(name).to(wanted)), name


def test_a_model_too_large_for_the_gpu_is_refused(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    folder, _ = pairs("llama", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(SourceError, match=r"does not fit into the GPU's memory .*fewer workers"):
        load(folder, "float32")


def test_a_pair_that_cannot_fit_is_found_before_loading(pairs: Pairs, tmp_path: Path) -> None:
    folder = pairs("llama", True)[0]
    other = save(make_model("llama", intermediate_size=64), make_tokenizer(), tmp_path / "other")
    models = f'[families.alpha]\nteacher = "{other}"\n[families.alpha.students.one]\npath = "{folder}"\n'
    (student,) = load_registry(write_registry(tmp_path, models)).select()
    with pytest.raises(LineageError, match="the student has shape"):
        check_local_files(student)


def test_an_adapter_of_another_kind_is_found_before_loading(pairs: Pairs, tmp_path: Path) -> None:
    folder = pairs("llama", True)[0]
    adapter = make_adapter(folder, tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LOHA"}')
    models = f'[families.alpha]\nteacher = "{folder}"\n[families.alpha.students.one]\npath = "{folder}"\n'
    (student,) = load_registry(write_registry(tmp_path, models + f'adapters = ["{adapter}"]\n')).select()
    with pytest.raises(SourceError, match=r"adapter_config\.json: not a LoRA adapter"):
        check_local_files(student)


def test_a_teacher_of_other_names_is_told_as_such(pairs: Pairs, tmp_path: Path) -> None:
    """Expect no word of a size: the numbers fit, their names do not."""
    student, teacher = pairs("gpt2", True)[0], save(make_model("gpt2"), make_tokenizer(), tmp_path / "bare", bare=True)
    units = enumerate_units(Checkpoint(student).config, Checkpoint(student).shapes)
    with pytest.raises(LineageError, match=r"bare: its tensors lack 'transformer\.' in their names"):
        check_shapes(Checkpoint(student), Checkpoint(teacher), units)
    old, today = pairs("gemma3", True)[0], pairs("gemma3-today", True)[0]
    units = enumerate_units(Checkpoint(today).config, Checkpoint(today).shapes)
    with pytest.raises(LineageError, match=r"holds no tensor 'model\.language_model.*one version"):
        check_shapes(Checkpoint(today), Checkpoint(old), units)


# --- prepare --------------------------------------------------------------------------------------


def make_adapter(base: Path, folder: Path) -> Path:
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM"),
    )
    vary(model, 5, 0.3, only=lambda name: "lora_" in name)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def spec(pairs: Pairs, tmp_path: Path) -> ModelSpec:
    base = Path(shutil.copytree(pairs("llama", True)[0], tmp_path / "base"))
    return ModelSpec(path=base, adapters=(make_adapter(base, tmp_path / "adapter"),))


def test_a_plain_folder_is_itself(pairs: Pairs, cache: Path) -> None:
    folder = pairs("llama", True)[0]
    assert prepare(ModelSpec(path=folder)) == folder
    assert not cache.exists()


def test_a_path_that_is_no_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(SourceError, match=r"neither a model folder nor a \.gguf file"):
        prepare(ModelSpec(path=file))
    with pytest.raises(SourceError, match="does not exist"):
        prepare(ModelSpec(path=tmp_path / "nowhere"))


def test_a_chat_template_is_for_a_gguf_model_alone(pairs: Pairs, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages[0].content }}", "utf-8")
    with pytest.raises(SourceError, match=r"chat\.jinja: only a GGUF model takes a chat template from the registry"):
        prepare(ModelSpec(path=pairs("llama", True)[0], chat_template=template))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "this chat template cannot be read"), (b"\xff", "not UTF-8"), (b" ", "this chat template is empty")],
)
def test_a_chat_template_that_is_none_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    gguf, template = tmp_path / "model.gguf", tmp_path / "chat.jinja"
    gguf.write_bytes(b"GGUF")
    if content is not None:
        template.write_bytes(content)
    with pytest.raises(SourceError, match=rf"chat\.jinja: {reason}"):
        prepare(ModelSpec(path=gguf, chat_template=template))


def test_adapters_are_merged_once(spec: ModelSpec, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged: list[Path] = []
    original = convert.merge_adapter

    def counted(base: Path, adapter: Path, out: Path) -> None:
        merged.append(adapter)
        original(base, adapter, out)

    monkeypatch.setattr(convert, "merge_adapter", counted)
    first = prepare(spec)
    assert first.is_relative_to(cache)
    before, after = Checkpoint(spec.path or Path()), Checkpoint(first)
    moved = {n for n in before.shapes if not torch.equal(before.tensor(n).bfloat16(), after.tensor(n).bfloat16())}
    assert moved == {n for n in before.shapes if "q_proj" in n or "up_proj" in n}
    assert prepare(spec) == first
    assert len(merged) == 1
    # What the merged folder was made of has changed: its tokenizer, then its adapter.
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ 'other' }}"
    tokenizer.save_pretrained(spec.path)
    second = prepare(spec)
    assert load(second, "float32").tokenizer.chat_template == "{{ 'other' }}"
    make_adapter(second, spec.adapters[0])
    third = prepare(spec)
    # So has the chat template in the adapter's folder.
    (spec.adapters[0] / "chat_template.jinja").write_text("{{ 'own' }}", "utf-8")
    fourth = prepare(spec)
    assert load(fourth, "float32").tokenizer.chat_template == "{{ 'own' }}"
    (spec.adapters[0] / "chat_template.jinja").rename(spec.adapters[0] / "old.jinja")
    fifth = prepare(spec)
    assert load(fifth, "float32").tokenizer.chat_template == "{{ 'other' }}"
    assert len({first, second, third, fourth, fifth}) == len(merged) == 5


def test_an_adapter_without_its_weights_is_named(spec: ModelSpec, cache: Path) -> None:
    (spec.adapters[0] / "adapter_model.safetensors").unlink()
    (spec.adapters[0] / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(SourceError, match=r"adapter_model\.safetensors: missing"):
        prepare(spec)
    assert not list(cache.rglob("config.json"))


def _prepare_and_tell(spec: ModelSpec, barrier: object, log: Path) -> None:
    """Prepare *spec* in a process of its own, and log each merge as a line."""
    torch.set_num_threads(1)
    original = convert.merge_adapter

    def counted(base: Path, adapter: Path, out: Path) -> None:
        with log.open("a") as stream:
            stream.write("merged\n")
        original(base, adapter, out)

    convert.merge_adapter = counted
    barrier.wait()  # type: ignore[attr-defined]
    assert Checkpoint(prepare(spec)).parameters > 0


def test_two_processes_merge_once(spec: ModelSpec, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, log = context.Barrier(2), tmp_path / "log"
    workers = [context.Process(target=_prepare_and_tell, args=(spec, barrier, log)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert log.read_text() == "merged\n"
