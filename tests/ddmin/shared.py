"""What several tests of `safety_harness.ddmin` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest

import safety_harness.ddmin as package
from safety_harness.ddmin import Reduction

T = TypeVar("T")
minimize = partial(package.minimize, certificate="explicit", check_empty=True)
EACH = pytest.mark.parametrize("strategy", ["adaptive", "halving", "ddmin"])


def comparable(result: Reduction[T]) -> Reduction[T]:
    """Drop what may differ between equal runs: the time, answers obtained in vain, and answers of a journal."""
    return replace(result, seconds=0.0, speculated=0, replayed=0)


def needs(*required: int) -> Callable[[tuple[int, ...]], bool]:
    """Return an oracle that accepts the sets that hold all of these units."""
    return lambda subset: set(required) <= set(subset)
