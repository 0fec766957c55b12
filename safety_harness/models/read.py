"""Read a checkpoint into memory, whatever it is for: every tensor finds a place, and every place a tensor."""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from safety_harness.errors import SourceError, remark
from safety_harness.models.spread import DeviceMap, check_in_place, require_accelerate
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.names import UNMERGED, is_computed, misnaming
from safety_harness.weights.units import Shape

# It reports tensors without a place as what "can be ignored". They are refused below.
logging.getLogger("transformers.modeling_utils").setLevel(logging.ERROR)
# It names the layers that are not spread over several devices, which no layer is here.
logging.getLogger("transformers.distributed.tensor_parallel").setLevel(logging.ERROR)

_PLAIN = (torch.float32, torch.bfloat16, torch.float16)
_SERVE = "Serve it with a program that can, and gate that: `served = { url = …, model = … }` in the registry"


def read_model(
    folder: Path,
    dtype: torch.dtype,
    *,
    as_it_is: bool = False,
    device_map: DeviceMap | None = None,
    auto: Any = AutoModelForCausalLM,
) -> tuple[Any, Checkpoint]:
    """Return the model of a checkpoint folder, and the checkpoint. It may be quantised if it is gated *as_it_is*.

    With a *device_map* its layers lie where that says, and else in main memory. *auto* is the class of transformers
    that finds the model's own.

    Raises:
        HarnessError: there is a device map, and the package is missing that reads one.
        SourceError: transformers cannot load it, or a tensor is missing, has another shape than the config says, or
            has no place in the model. Or the config says that the head is the embedding, and it is another. Or nothing
            can compute with the quantised numbers on this machine. Or a spread model does not fit the GPUs.
    """
    if device_map is not None:
        require_accelerate(folder)
    checkpoint = Checkpoint(folder, as_it_is=as_it_is)
    try:
        model, report = auto.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            device_map=device_map,
        )
    except torch.OutOfMemoryError as error:
        raise no_room(folder) from error
    except Exception as error:  # transformers and its validators raise many kinds of errors for a bad checkpoint
        why = "its experts are not those of its config" if "CONVERSION" in str(error) else reason(error)
        if checkpoint.quantised:
            raise _no_quantised(checkpoint, "load", why) from error
        raise SourceError(f"{folder}: transformers cannot load it ({why}).") from error
    if device_map is not None:
        check_in_place(model, folder)
    account(folder, model, report, checkpoint.shapes)
    if checkpoint.quantised:
        model = _tried(model, checkpoint, dtype)
    return model, checkpoint


def _tried(model: Any, checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """Return a quantised *model* that computes, in *dtype* where it was dequantised.

    Raises:
        SourceError: it does not compute: programs find out only then that a processor or a shape is not for them.
    """
    unread = [getattr(one, "quantization_config", None) for one in (model.config, model.config.get_text_config())]
    if getattr(model, "hf_quantizer", None) is None and any(unread):
        why = "it knows no way of that name, and would take the packed numbers for weights"
        raise _no_quantised(checkpoint, "load", why)
    try:
        if all(parameter.dtype in _PLAIN for parameter in model.parameters()):
            model = model.to(dtype)
        with torch.inference_mode():
            tokens = torch.zeros(1, 2, dtype=torch.long, device=model.device)
            finite = bool(model(input_ids=tokens).logits.isfinite().all())
    except Exception as error:  # of any of a dozen libraries
        raise _no_quantised(checkpoint, "compute with", reason(error)) from error
    if not finite:
        raise _no_quantised(checkpoint, "compute with", "a NaN or an infinity comes out")
    remark(
        f"{checkpoint.folder}: is quantised ({checkpoint.quantised}), and gated as transformers computes it on this "
        "machine. Another program may round otherwise: to gate what it answers, serve it."
    )
    return model


def _no_quantised(checkpoint: Checkpoint, what: str, why: str) -> SourceError:
    return SourceError(
        f"{checkpoint.folder}: is quantised ({checkpoint.quantised}), and transformers cannot {what} it here ({why}). "
        f"{_SERVE}."
    )


def account(source: Path, model: Any, report: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    """Check by the loader's report that *model* holds every tensor of *source*, and nothing else.

    Raises:
        SourceError: they are not. The message names the first that is not.
    """
    missing = sorted(report["missing_keys"])
    found = {*report["unexpected_keys"], *_passed_over(model, shapes)}
    unused = sorted(name for name in found if not is_computed(name, shapes.get(name)))
    if wrong := misnaming(unused, missing):
        raise SourceError(f"{source}: {len(unused)} of its tensors {wrong}")
    if missing:  # transformers has filled it with random numbers
        raise SourceError(f"{source}: lacks the tensor {missing[0]!r}. Get the whole checkpoint.")
    if report["mismatched_keys"]:
        name, shape, wanted = sorted(report["mismatched_keys"])[0]
        raise SourceError(
            f"{source}: its tensor {name!r} has the shape {tuple(shape)}, and its config makes a model with "
            f"{tuple(wanted)} there. Get config and weights of one model."
        )
    if unused:
        advice = UNMERGED if any(".lora_" in name for name in unused) else "Get the config that belongs to it."
        raise SourceError(
            f"{source}: {len(unused)} of its tensors have no place in the model that its config describes, "
            f"{unused[0]!r} first, and would be left out of what is measured. " + advice
        )
    _refuse_another_head(source, model)


def _passed_over(model: Any, shapes: Mapping[str, Shape]) -> list[str]:
    """Return the tensors that have no place in *model*, and that its class tells transformers not to report."""
    patterns = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]
    places, prefix = model.state_dict().keys(), f"{model.base_model_prefix}."
    return [
        name
        for name in shapes
        if any(pattern.search(name) for pattern in patterns)
        and not {name, prefix + name, name.removeprefix(prefix)} & places
    ]


def _refuse_another_head(source: Path, model: Any) -> None:
    """Check that the head is the embedding if the config says so. transformers takes the head that is on disk."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if getattr(model.config, "tie_word_embeddings", False) and head is not None and head.weight is not embedding.weight:
        raise SourceError(
            f"{source}: says two things: its config makes the head of the embedding (`tie_word_embeddings`, true also "
            "by default), and a head with other numbers is on disk. Programs differ in which they use. Set "
            "`tie_word_embeddings` to false, or remove the head."
        )


def no_room(folder: Path) -> SourceError:
    """Return the error for a GPU that has no room for the model in *folder*."""
    return SourceError(
        f"{folder}: does not fit into the GPU's memory next to what is there. Use fewer workers (-n), or raise "
        "`memory_gib` in the registry, by which -n auto counts them; or spread it over several GPUs with `device_map`."
    )


def reason(error: Exception) -> str:
    """Return an error of another library in one short line."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …")
