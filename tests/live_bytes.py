"""Count what torch holds on a CPU, where it keeps no account itself."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Count the bytes of tensors that operations have made and that are alive, and the most that there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs or {})):
            self._know(tensor, made=False)
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            self._know(tensor, made=True)
        return made

    def _know(self, tensor: Any, *, made: bool) -> None:
        """Count the storage of a tensor, if it is new and was *made* by an operation."""
        if not isinstance(tensor, torch.Tensor) or tensor.untyped_storage()._cdata in self._known:
            return
        storage = tensor.untyped_storage()
        size = storage.nbytes() if made else 0
        self._known.add(storage._cdata)
        weakref.finalize(storage, self._forget, storage._cdata, size)
        self.now += size
        self.most = max(self.most, self.now)

    def _forget(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self.now -= size
