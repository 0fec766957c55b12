"""Merge a LoRA adapter whole, or say what of it finds no place in the base model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from safety_harness.errors import SourceError
from safety_harness.models.lineage import NO_MEANING
from safety_harness.models.read import reason
from safety_harness.weights.adapter import WEIGHTS
from safety_harness.weights.checkpoint import Checkpoint, read_header
from safety_harness.weights.header import READER
from safety_harness.weights.names import misnaming

# What a config.json says about how a model was kept or packed. It computes the same.
_BOOKKEEPING = frozenset(("architectures", "dtype", "quantization_config", "torch_dtype", "transformers_version"))
_ENDS = "eos_token_id"


def refuse_other_settings(adapter: Path, config: PreTrainedConfig) -> None:
    """Check that a config.json in an adapter's folder means nothing else than that of the base model.

    The tokens that end an answer count unless a generation_config.json names them.
    """
    file = adapter / "config.json"
    if not file.is_file():
        return
    table, own = READER.table(file), json.loads(config.to_json_string(use_diff=False))
    differs = list(_other_settings(table, own))
    if not (adapter / "generation_config.json").is_file() and table.get(_ENDS, own.get(_ENDS)) != own.get(_ENDS):
        differs.append((_ENDS, table[_ENDS], own.get(_ENDS)))
    for key, value, other in differs:
        raise SourceError(
            f"{file}: says {key} = {value!r}, and the base model {other!r}. Merge the adapter with the tool "
            "that trained it, and name the merged model; or remove the file."
        )


def _other_settings(said: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each setting with a meaning that *said* and *own* have with two values, also of a part of the model."""
    for key in sorted((said.keys() & own.keys()) - _BOOKKEEPING):
        value, other = said[key], own[key]
        if key.endswith("_config") and isinstance(value, dict) and isinstance(other, dict):
            yield from _other_settings(value, other)
        elif value != other and not NO_MEANING.fullmatch(key):
            yield key, value, other


def merge(model: Any, adapter: Path, base: Path) -> Any:
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
    count = len(read_header(adapter / WEIGHTS))
    gaps = sorted(report.missing_keys)
    if lost := sorted(report.unexpected_keys):
        wrong = misnaming(lost, (name.replace(".default.", ".") for name in gaps))
        raise SourceError(
            f"{adapter}: only {count - len(lost)} of its {count} tensors find a place in the base model"
            + (
                f"; the rest {wrong}"
                if wrong
                else f", and {lost[0]!r} finds none. Merge it into the model it was made for."
            )
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


def refuse_no_change(adapter: Path, base: Checkpoint, merged: Checkpoint) -> None:
    """Check that what was merged is not the base."""
    if base.shapes == merged.shapes and all(
        torch.equal(base.tensor(name).bfloat16(), merged.tensor(name)) for name in base.shapes
    ):
        raise SourceError(
            f"{adapter}: changes no number of the base model: it was saved before it had learnt anything, or is too "
            "small for bfloat16. Leave it out, or get the trained one."
        )
