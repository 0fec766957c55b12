"""Say what a folder needs to be a LoRA adapter."""

from __future__ import annotations

from pathlib import Path

from safety_harness.errors import SourceError
from safety_harness.weights.checkpoint import read_header, refuse_packed
from safety_harness.weights.header import READER

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def require_adapter(folder: Path) -> None:
    """Check by its config and headers that a folder holds a LoRA adapter.

    Raises:
        SourceError: a file is missing or damaged, its numbers are packed, or it is an adapter of another kind.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise SourceError(f"{folder / name}: missing. An adapter folder holds {CONFIG} and {WEIGHTS}.")
    if READER.table(folder / CONFIG).get("peft_type") != "LORA":
        raise SourceError(f"{folder / CONFIG}: not a LoRA adapter (peft_type must be LORA).")
    refuse_packed(folder, read_header(folder / WEIGHTS))
