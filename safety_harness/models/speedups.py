"""The parts that make answering cheaper and keep the answers, as one value: each can be left out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from safety_harness.errors import remark
from safety_harness.models.decoding.cuda_graphs import GraphCache, capturable
from safety_harness.models.decoding.drafts import Drafts
from safety_harness.models.decoding.kv_cache import preallocated_cache
from safety_harness.models.decoding.packed_weights import packed_weights
from safety_harness.models.spread import spans_devices

# Prefilling a common beginning takes one more call of the model, which must save this many tokens to be worth it.
MIN_PREFILL_TOKENS_SAVED = 128


@dataclass(frozen=True)
class Speedups:
    """What a generator may use beyond plain decoding. A part that is None or False is not used.

    In float32 every choice of parts gives the same tokens. In bfloat16 an answer depends on the shape of each pass, so
    there the choice belongs to a measurement's identity: the harness always takes :meth:`for_model`.
    """

    drafts: Drafts | None = None
    """Earlier answers, which serve as draft tokens of speculative decoding."""
    graphs: GraphCache | None = None
    """CUDA graphs of passes that read one token a row, and of reading a common beginning."""
    preallocated: bool = False
    """Whether the KV cache is allocated ahead of the tokens that it will hold."""
    packed: bool = False
    """Whether the weights of linear layers are packed while a batch is decoded."""
    min_prefill_tokens_saved: int | None = None
    """How many tokens of prefill a common beginning must save to be read once a batch instead of once a row."""

    @classmethod
    def for_model(cls, model: Any) -> Speedups:
        """Return every part that pays for *model* and leaves its answers reproducible."""
        # Drafts depend on earlier answers. In bfloat16 they would make an answer depend on what was asked before it.
        exact = model.dtype == torch.float32
        # Drafts make passes of many widths, and a CUDA graph has one width.
        captured = not exact and model.device.type == "cuda"
        if captured and spans_devices(model):
            remark(
                "The model lies on several GPUs, so its passes are not recorded as CUDA graphs: short ones take longer."
            )
            captured = False
        return cls(
            drafts=Drafts() if exact else None,
            graphs=GraphCache(model) if captured and capturable(model) else None,
            preallocated=True,
            packed=True,
            min_prefill_tokens_saved=MIN_PREFILL_TOKENS_SAVED,
        )

    @classmethod
    def none(cls) -> Speedups:
        """Return no part at all: plain batched decoding."""
        return cls()

    def empty_cache(self, config: Any) -> DynamicCache:
        """Return an empty KV cache for a model of this config."""
        return preallocated_cache(config) if self.preallocated else DynamicCache(config=config)

    def packing(self, model: Any) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the weights of *model* are packed, if they are at all."""
        return packed_weights(model) if self.packed else contextlib.nullcontext()

    def forget(self) -> bool:
        """Drop the CUDA graphs with the memory that they hold, and return whether there were any."""
        return self.graphs is not None and self.graphs.forget()
