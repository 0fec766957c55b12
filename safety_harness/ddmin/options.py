"""Define every option of a reduction in one place, for `minimize`, `minimize_async` and `Reducer` alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypedDict, get_args

from safety_harness.ddmin.errors import ArgumentError
from safety_harness.ddmin.sprt import Noise, Scores
from safety_harness.ddmin.types import Event, Level, T


class OptionArguments(TypedDict, Generic[T], total=False):
    """The fields of `Options` as keyword arguments. Python cannot derive one from the other; a test compares them."""

    strategy: str
    weights: Sequence[float] | Callable[[T], float] | None
    certificate: Level
    check_empty: bool
    max_calls: int | None
    max_seconds: float | None
    target_size: int | None
    on_event: Callable[[Event], None] | None
    assume: Mapping[frozenset[T], bool] | None
    noise: Noise | Scores | None
    journal: str | os.PathLike[str] | None
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Options(Generic[T]):
    """How to reduce.

    strategy: a key of STRATEGIES. "adaptive" makes the fewest calls. "halving" suits texts. "ddmin" is the algorithm
        of 2002, for comparison.
    weights: one importance per unit, or a function of the unit. Units of small weight are left out first, so units
        of large weight tend to stay. Weights change which sets are asked about and which set is kept. They never
        change what is promised of the kept set.
    certificate: how well each kept unit must be shown to be needed:
        "none": by the search alone;
        "monotone": some refused set holds all kept units but this one. If the oracle is monotone (adding units
            never turns true into false), no proper subset of the result is accepted. A few of these inferences are
            tested. If an answer shows that the oracle is not monotone, "explicit" takes over;
        "explicit": the oracle refuses the result without this unit: 1-minimal, whatever the oracle is;
        "confidence": as "explicit". For an oracle that errs, each of these refusals is asked until it is certain.
    check_empty: ask about the empty set right after the full set. Without it, a monotone oracle that accepts the
        empty set is noticed within log2 of the number of units.
    max_calls, max_seconds: budget of distinct oracle calls (the full set included) and of wall time. Both are
        checked before each call: a call under way is not cut short.
    target_size: stop at a set of at most this many units.
    on_event: called at every step, from the caller's thread, for example to draw a progress bar.
    assume: known answers of this oracle, for example {frozenset(units): True}. They count as seen, are never
        asked, and cost no budget.
    noise: for an oracle that errs: Noise(flips) if some answers come out wrong, Scores(threshold, margin, spread)
        if it returns scores. A set is then returned only after it was accepted repeatedly.
    journal, fingerprint: a file that keeps every answer, and a text that identifies the oracle. A run that was
        killed asks nothing twice when it is called again with both, and ends with the same result.

    Raises ArgumentError for a budget, size or certificate that cannot be used.
    """

    strategy: str = "adaptive"
    weights: Sequence[float] | Callable[[T], float] | None = None
    certificate: Level = "monotone"
    check_empty: bool = False
    max_calls: int | None = None
    max_seconds: float | None = None
    target_size: int | None = None
    on_event: Callable[[Event], None] | None = None
    assume: Mapping[frozenset[T], bool] | None = None
    noise: Noise | Scores | None = None
    journal: str | os.PathLike[str] | None = None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.max_calls is not None and self.max_calls < 1:
            raise ArgumentError(f"max_calls is {self.max_calls}; the full set alone takes one call, so use at least 1")
        if self.max_seconds is not None and not self.max_seconds > 0:  # refuses NaN as well
            raise ArgumentError(f"max_seconds is {self.max_seconds}; use a number above 0")
        if self.target_size is not None and self.target_size < 0:
            raise ArgumentError(f"target_size is {self.target_size}; use 0 or more units")
        if self.certificate not in get_args(Level):
            raise ArgumentError(
                f"unknown certificate {self.certificate!r}; choose one of: {', '.join(get_args(Level))}"
            )
