"""Rows of different lengths become one tensor, with a mask of what counts."""

from __future__ import annotations

import torch

from safety_harness.models.decoding.batch import PAD, pad_between, pad_left


def test_pad_between() -> None:
    """Pad heads on their left and tails on their right."""
    padded, mask = pad_between([[5, 6, 7], [8]], [(1,), (2, 3)], torch.device("cpu"))
    assert padded.tolist() == [[5, 6, 7, 1, PAD], [PAD, PAD, 8, 2, 3]]
    assert mask.tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]


def test_pad_left() -> None:
    """Pad rows without tails."""
    padded, mask = pad_left([[5, 6, 7], [8]], torch.device("cpu"))
    assert padded.tolist() == [[5, 6, 7], [PAD, PAD, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert padded.dtype == mask.dtype == torch.int64
