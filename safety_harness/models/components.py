"""Decompose what a teacher adds to a matrix into components: singular values, each with its two vectors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from safety_harness.errors import NotFinite

# How many more components are looked for than are taken: the last ones come out inexact.
_MORE = 8
_ITERATIONS = 4
# Two processors agree on some 40 bits of a float64 result. To so few bits they round alike.
_BITS = 16
METHOD = (
    f"svd_lowrank in float64, {_MORE} more, {_ITERATIONS} iterations, seed 0, {_BITS} bits, torch {torch.__version__}"
)
"""How components are found. Others would have the same names."""


def largest_components(added: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the *rank* largest components of a matrix, float32 on the CPU; a smaller one has fewer.

    Their shapes are (rows, rank), times the singular values, and (rank, columns). Numbers have 16 bits, and the largest
    of each right vector is positive, so that they are the same on every processor.

    Raises:
        NotFinite: the matrix holds a NaN or an infinity.
    """
    if not added.isfinite().all():
        raise NotFinite("What the teacher adds holds a NaN or an infinity.")
    with _alone():
        left, sizes, right = torch.svd_lowrank(added.double(), min(rank + _MORE, *added.shape), niter=_ITERATIONS)
    left, right = (left * sizes)[:, :rank], right[:, :rank]
    signs = right.gather(0, right.abs().argmax(0, keepdim=True)).sign()
    return _rounded(left * signs), _rounded((right * signs).T)


def _rounded(numbers: torch.Tensor) -> torch.Tensor:
    """Return *numbers* with their first bits alone, float32."""
    mantissas, exponents = torch.frexp(numbers)
    return torch.ldexp((mantissas * 2**_BITS).round(), exponents - _BITS).float().contiguous()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Run a block on one thread, whose number decides the last bits, and from the same random numbers each time."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    torch.default_generator.manual_seed(0)  # the CPU's alone
    try:
        yield
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
