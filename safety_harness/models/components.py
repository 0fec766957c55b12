"""Decompose what a teacher adds to a matrix into components: singular values, each with its two vectors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from safety_harness.errors import NotFinite

# How many more components are looked for than are taken: the last ones come out inexact.
_MORE = 8
_ITERATIONS = 4
# Two processors agree on 40 bits of a float64 result or more. To so few bits they nearly always round alike.
_BITS = 16
# A component that is smaller, relative to the largest, is rounding error: each processor has its own.
_NOTHING = 2.0**-40
METHOD = (
    f"svd_lowrank in float64, {_MORE} more, {_ITERATIONS} iterations, seed 0, {_BITS} bits, torch {torch.__version__}"
)
"""How components are found. Others would have the same names."""


def largest_components(added: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the *rank* largest components of a matrix, float32 on the CPU; a smaller one has fewer.

    Their shapes are (rows, rank), times the singular values, and (rank, columns). Numbers have 16 bits, and the largest
    of each right vector is positive, so that processors agree. They cannot where two singular values are equal.

    Raises:
        NotFinite: the matrix holds a NaN or an infinity.
    """
    if not added.isfinite().all():
        raise NotFinite("What the teacher adds holds a NaN or an infinity.")
    with _alone():
        left, sizes, right = torch.svd_lowrank(added.double(), min(rank + _MORE, *added.shape), niter=_ITERATIONS)
    left, right = (left * sizes)[:, :rank], right[:, :rank]
    signs = right.gather(0, right.abs().argmax(0, keepdim=True)).sign()
    signs = signs * (sizes[:rank] > sizes[0] * _NOTHING)
    return _rounded(left * signs), _rounded((right * signs).T)


def _rounded(numbers: torch.Tensor) -> torch.Tensor:
    """Return *numbers* with their first bits alone, float32."""
    mantissas, exponents = torch.frexp(numbers)
    first = torch.ldexp((mantissas * 2**_BITS).round(), exponents - _BITS)
    return (first + 0.0).float().contiguous()  # no zero is negative


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
