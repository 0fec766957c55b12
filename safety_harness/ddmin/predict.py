"""Forecast how many of the next units can go together, from the runs seen so far.

Three views of where required units lie are mixed by how well each has predicted the runs so far:
- spread evenly;
- in clusters: the unit directly after a required unit has a rate of its own;
- suddenly everywhere: a rate that forgets fast, for the moment when a threshold has no slack left.
Each view is a rate of required units with a Beta distribution, so a run's length is beta-geometric. The mixture is
Bayesian model averaging whose evidence fades: Raftery, Karny & Ettler, Online Prediction Under Model Uncertainty via
Dynamic Model Averaging, Technometrics 52(1), 2010.
Nothing here decides what is kept. A poor forecast costs questions, never correctness.
"""

from __future__ import annotations

from copy import copy
from math import exp, lgamma, log, log2
from typing import Self

# Share of a view's log-likelihood that still counts after one more run: the best view may change during a search, as
# when a threshold runs out of slack. On the cells of benchmarks/ddmin, shares from 0.5 to 1 differ by 3 % at most.
_DISCOUNT = 0.7
# Least probability that enters a logarithm or a division: a view that was certain and wrong must not be lost for good.
_FLOOR = 1e-12
# A first run whose end was known to lie within some range says little about the rate, so at most this many of its units
# count. Counting none costs scattered units 1 to 3 % more calls; counting all costs thresholds with a prior 3 % more.
_UNITS_OF_A_BOUNDED_RUN = 2
# How much an observation counts after each later one. 0.8 remembers about five runs; 0.6 and 0.95 do as well.
_DECAY = 0.8
# The fast view remembers about two runs, and of a long run no more than three units: after a few required units in a
# row it expects the next one. Without this view thresholds cost 2 % more calls, up to 8 % among 224 units.
_FAST_DECAY, _FAST_CAP = 0.5, 3


class _Rate:
    """A Beta(a, b) rate of required units. Its evidence fades by `decay` with each new observation.

    cap: removable units that one observation counts for at most.
    """

    def __init__(self, a: float, b: float, *, decay: float, cap: float = float("inf")) -> None:
        self._a0, self._b0, self._decay, self._cap = a, b, decay, cap
        self._required = 0.0
        self._removable = 0.0

    def observe(self, required: float, removable: float) -> None:
        """Take one observation: this many required and this many removable units."""
        self._required = self._required * self._decay + required
        self._removable = self._removable * self._decay + min(removable, self._cap)

    def survival(self, length: int) -> float:
        """Return the probability that none of the next `length` units is required (beta-binomial)."""
        if length == 0:
            return 1.0
        # B(a, b + length) / B(a, b), by logarithms of the gamma function: the quotient itself would overflow.
        a, b = self._a0 + self._required, self._b0 + self._removable
        return exp(lgamma(b + length) - lgamma(b) + lgamma(a + b) - lgamma(a + b + length))


class _Even:
    """The view that required units are spread evenly."""

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
    """The view that required units form clusters: the unit directly after one has a rate of its own.

    Without this view blocks of neighbours cost 19 % more calls on the cells of benchmarks/ddmin.
    """

    def __init__(self, rate: _Rate) -> None:
        super().__init__(rate)
        self._next = _Rate(0.5, 0.5, decay=_DECAY)  # Jeffreys' prior: nothing is known, and one answer says much
        self._after_required = False

    def survival(self, length: int) -> float:
        if not self._after_required or length == 0:
            return self._rate.survival(length)
        return self._next.survival(1) * self._rate.survival(length - 1)

    def observe(self, run: int) -> None:
        # The unit after a required one speaks for the cluster's rate alone, and the rest of the run for the other.
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
    """A forecast of the run of removable units ahead. It takes note of every removal and of every required unit.

    first_within: the first required unit is one of the next `first_within`, with equal chance; 0: nothing is known.
    """

    def __init__(self, units: int, *, first_within: int = 0) -> None:
        self._places = first_within  # equally likely ends of the first run; 0 once it has ended, or if none are known
        # Beta(a, 1) survives n units with probability of about n ** -a. This a makes that 1/2 for half of all units, so
        # the first question leaves out half of them, however many there are.
        a = log(2) / log(max(units, 4) / 2)
        self._views: tuple[_Even, ...] = (
            _Even(_Rate(a, 1, decay=_DECAY)),
            _Clustered(_Rate(a, 1, decay=_DECAY)),
            _Even(_Rate(a, 1, decay=_FAST_DECAY, cap=_FAST_CAP)),
        )
        self._credit = [0.0] * len(self._views)  # discounted log-likelihood of each view
        self._run = 0  # units removed since the last required one
        self._weights = [1.0] * len(self._views)
        self._now = sum(self._weights)  # the mixture's probability of the run so far

    def fork(self) -> Self:
        """Return an independent copy."""
        twin = copy(self)
        twin._views = tuple(view.fork() for view in self._views)
        twin._credit = self._credit.copy()
        return twin

    def survival(self, length: int) -> float:
        """Return the probability that the next `length` units can all go, given the run so far."""
        if self._places:
            return 1 - length / (self._places - self._run)
        return self._mixed(self._run + length) / self._now

    def questions(self, left: int) -> float:
        """Estimate how many questions the next `left` units will take."""
        # A required unit takes about two questions, and each unit at most one where nearly all are required.
        return left * min(1.0, 2 * (1 - self.survival(1))) + log2(left + 1)

    def removed(self, length: int) -> None:
        """Take note that the next `length` units have gone."""
        self._run += length
        self._now = max(self._mixed(self._run), _FLOOR)

    def required(self) -> None:
        """Take note that the next unit could not go: a run has ended."""
        if self._places:
            self._places, self._run = 0, min(self._run, _UNITS_OF_A_BOUNDED_RUN)
        for k, view in enumerate(self._views):
            likelihood = view.survival(self._run) - view.survival(self._run + 1)
            self._credit[k] = self._credit[k] * _DISCOUNT + log(max(likelihood, _FLOOR))
            view.observe(self._run)
        self._run = 0
        top = max(self._credit)  # taken out before `exp`, so that the best view's weight is 1 and none overflows
        self._weights = [exp(credit - top) for credit in self._credit]
        self._now = sum(self._weights)

    def _mixed(self, run: int) -> float:
        """Return the views' weighted probability, not normalised, of a run of at least this length."""
        return sum(w * view.survival(run) for w, view in zip(self._weights, self._views, strict=True))
