"""How many of the next units can probably go together, judged from what went before.

Three views of where required units lie, each a Beta-distributed rate of "required" per unit, are mixed by
how well each has foretold the run lengths seen so far: an even spread, clusters (the unit right after a
required one has a rate of its own), and a rate that forgets fast, for the moment when a threshold's slack is
used up and suddenly every unit is required. Nothing here decides what is kept: a poor forecast costs
questions, never correctness.
"""

from __future__ import annotations

from copy import copy
from math import exp, lgamma, log, log2
from typing import Self

_DISCOUNT = 0.7  # how much of a view's record counts after one more observation
_FLOOR = 1e-12
_TOLD = 2  # units that a run counts for if something else than the views has told where it may end


class _Rate:
    """Beta(a, b) rate of required units, whose evidence fades by `decay` with each new observation."""

    def __init__(self, a: float, b: float, *, decay: float, cap: float = float("inf")) -> None:
        self._a0, self._b0, self._decay, self._cap = a, b, decay, cap
        self._required = 0.0
        self._removable = 0.0

    def observe(self, required: float, removable: float) -> None:
        self._required = self._required * self._decay + required
        self._removable = self._removable * self._decay + min(removable, self._cap)

    def survival(self, length: int) -> float:
        """Probability that none of the next `length` units is required (beta-binomial)."""
        if length == 0:
            return 1.0
        a, b = self._a0 + self._required, self._b0 + self._removable
        return exp(lgamma(b + length) - lgamma(b) + lgamma(a + b) - lgamma(a + b + length))


class _Even:
    """Required units are spread evenly."""

    def __init__(self, rate: _Rate) -> None:
        self._rate = rate

    def survival(self, length: int) -> float:
        return self._rate.survival(length)

    def observe(self, run: int) -> None:
        self._rate.observe(1, run)

    def fork(self) -> Self:
        twin = copy(self)
        twin._rate = copy(self._rate)
        return twin


class _Clustered(_Even):
    """Required units attract each other: right after one, the next unit has a rate of its own."""

    def __init__(self, rate: _Rate) -> None:
        super().__init__(rate)
        self._next = _Rate(0.5, 0.5, decay=0.8)
        self._after_required = False

    def survival(self, length: int) -> float:
        if not self._after_required or length == 0:
            return self._rate.survival(length)
        return self._next.survival(1) * self._rate.survival(length - 1)

    def observe(self, run: int) -> None:
        if not self._after_required:
            self._rate.observe(1, run)
        elif run == 0:
            self._next.observe(1, 0)
        else:
            self._next.observe(0, 1)
            self._rate.observe(1, run - 1)
        self._after_required = True

    def fork(self) -> Self:
        twin = super().fork()
        twin._next = copy(self._next)
        return twin


class RunForecast:
    """Forecasts the run of removable units ahead; told of every removal and of every required unit met.

    first_within: the first required unit is any of the next so many, with equal chance; 0: nothing is known.
    """

    def __init__(self, units: int, *, first_within: int = 0) -> None:
        self._places = first_within  # equally likely ends of the first run; 0: no such view
        # This prior makes half of all units the even bet for the first run, however many there are.
        a = log(2) / log(max(units, 4) / 2)
        self._views: tuple[_Even, ...] = (
            _Even(_Rate(a, 1, decay=0.8)),
            _Clustered(_Rate(a, 1, decay=0.8)),
            _Even(_Rate(a, 1, decay=0.5, cap=3)),
        )
        self._credit = [0.0] * len(self._views)  # discounted log-likelihood of each view
        self._run = 0  # units removed since the last required one
        self._weights = [1.0] * len(self._views)
        self._now = sum(self._weights)

    def fork(self) -> Self:
        """An independent copy."""
        twin = copy(self)
        twin._views = tuple(view.fork() for view in self._views)
        twin._credit = self._credit.copy()
        return twin

    def survival(self, length: int) -> float:
        """Probability that the next `length` units can all go, given the run so far."""
        if self._places:
            return 1 - length / (self._places - self._run)
        return self._mixed(self._run + length) / self._now

    def questions(self, left: int) -> float:
        """Roughly how many questions the next `left` units will take."""
        return left * min(1.0, 2 * (1 - self.survival(1))) + log2(left + 1)

    def removed(self, length: int) -> None:
        """The next `length` units have gone."""
        self._run += length
        self._now = max(self._mixed(self._run), _FLOOR)

    def required(self) -> None:
        """The next unit could not go: a run has ended."""
        if self._places:
            self._places, self._run = 0, min(self._run, _TOLD)
        for k, view in enumerate(self._views):
            likelihood = view.survival(self._run) - view.survival(self._run + 1)
            self._credit[k] = self._credit[k] * _DISCOUNT + log(max(likelihood, _FLOOR))
            view.observe(self._run)
        self._run = 0
        top = max(self._credit)
        self._weights = [exp(credit - top) for credit in self._credit]
        self._now = sum(self._weights)

    def _mixed(self, run: int) -> float:
        return sum(w * view.survival(run) for w, view in zip(self._weights, self._views, strict=True))
