"""How sure a few answers make: Wald's sequential probability ratio test, for answers that flip and for scores.

A test adds up evidence, one measurement at a time, and ends when it leads far enough to one side: then the chance of
the wrong side is at most the tolerated error (Wald, Sequential Tests of Statistical Hypotheses, 1945: section 4 for
right or wrong, section 6 for the mean of a normal distribution).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, log
from statistics import fmean

from safety_harness.ddmin.errors import ArgumentError
from safety_harness.ddmin.types import Answer, Reply

_HASTY = 0.05  # tolerated chance that one step of the search goes wrong: the search can go back
_CERTAIN = 1e-3  # tolerated chance that a kept unit is not needed, where confidence is asked for
_FROZEN = 0.01  # chance of so many agreeing repeats below which they are taken for one answer
_TIE = 0.5  # chance of two equal scores, if they are rounded coarsely


@dataclass(frozen=True)
class Noise:
    """How much an oracle errs, and how sure its result is to be.

    flips: the share of answers that come out wrong, 0 < flips < .5, each independently of the others, repeats
        included. A repeat is evidence only if it is a new measurement: fresh seeds or other samples.
    error: tolerated probability that the returned set is not one that the oracle truly accepts. A long search
        gives chance many openings, so more units need more answers.

    Evidence is counted in answers: those for a set less those against it.
    """

    flips: float = 0.02
    error: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.flips < 0.5:
            raise ArgumentError(f"flips is {self.flips}; use a share above 0 and below .5")
        _check_error(self.error)

    def sure(self, units: int) -> float:
        """By how many answers one side must lead to settle a question for good, in a search over `units`."""
        return self._lead(self.error / max(units, 1))

    @property
    def likely(self) -> float:
        """By how many answers a set must lead for the search to go on from it."""
        return self._lead(_HASTY)

    @property
    def doubtful(self) -> float:
        """At what lead a set that the search went on from is taken back."""
        return -self.likely

    def refused(self, replies: Sequence[Reply]) -> bool:
        """Whether the search goes on as if the set were not enough."""
        return sum(map(self.weight, replies)) <= -self.likely

    @property
    def certain(self) -> float:
        """By how many refusals a kept unit counts as tested, where confidence is asked for."""
        return self._lead(_CERTAIN)

    @property
    def vouches(self) -> float:
        """What an accepted subset says for a set."""
        return 1

    def weight(self, reply: Reply) -> float:
        """What one answer says for a set, or against it."""
        return 1 if reply is Answer.TRUE else -1

    def plain(self, reply: Reply) -> Answer:
        """One answer, taken as it is."""
        return Answer.TRUE if reply is Answer.TRUE else Answer.FALSE

    def frozen(self, repeats: int, disagreements: int) -> bool:
        """Whether repeats agree too well to be measurements of their own."""
        agree = (1 - self.flips) ** 2 + self.flips**2
        return disagreements == 0 and agree**repeats < _FROZEN

    def _lead(self, error: float) -> int:
        return ceil(log(1 / error) / log((1 - self.flips) / self.flips))


@dataclass(frozen=True)
class Scores:
    """An oracle that returns a score with measurement error, and how sure its result is to be.

    threshold: a set is enough if its true score, the mean of many measurements, is at least that.
    margin: a set whose true score lies this far below the threshold must not be returned; in between, either may
        come out. The smaller, the more repeats: about (spread / margin) ** 2 times as many.
    spread: the standard deviation of one measurement. Measure the full set a few times to learn it; for a share of
        m questions it is about (share * (1 - share) / m) ** .5.
    error: tolerated probability that the returned set lies below threshold - margin.

    A repeat is evidence only if it is a new measurement: fresh seeds or other samples. Evidence is counted in nats.
    """

    threshold: float
    margin: float
    spread: float
    error: float = 1e-4

    def __post_init__(self) -> None:
        if not isfinite(self.threshold):
            raise ArgumentError(f"threshold is {self.threshold}; use a finite number")
        for name, value in (("margin", self.margin), ("spread", self.spread)):
            if not (isfinite(value) and value > 0):
                raise ArgumentError(f"{name} is {value}; use a number above 0, in the unit of the scores")
        _check_error(self.error)

    def sure(self, units: int) -> float:
        """By how much one side must lead to settle a question for good, in a search over `units`."""
        return log(max(units, 1) / self.error)

    @property
    def likely(self) -> float:
        """By how much a set must lead for the search to go on from it."""
        return log(1 / _HASTY)

    @property
    def doubtful(self) -> float:
        """At what lead a set that the search went on from is taken back."""
        return 0

    def refused(self, replies: Sequence[Reply]) -> bool:
        """Whether the search goes on as if the set were not enough: at the first doubt.

        Aiming at the threshold itself keeps the search away from the sets in the margin, which cost many repeats;
        a set refused wrongly costs a few units at most.
        """
        return fmean(self._score(reply) for reply in replies) < self.threshold

    @property
    def certain(self) -> float:
        """By how much the evidence against a set must lead where confidence is asked for."""
        return log(1 / _CERTAIN)

    @property
    def vouches(self) -> float:
        """What an accepted subset says for a set."""
        return self.likely

    def weight(self, reply: Reply) -> float:
        """What one score says for a set, or against it: log of how much likelier at the threshold than below."""
        return self.margin / self.spread**2 * (self._score(reply) - self.threshold + self.margin / 2)

    def plain(self, reply: Reply) -> Answer:
        """One score, taken as it is."""
        return Answer.TRUE if self._score(reply) >= self.threshold else Answer.FALSE

    def frozen(self, repeats: int, disagreements: int) -> bool:
        """Whether repeats are equal too often to be measurements of their own."""
        return disagreements == 0 and _TIE**repeats < _FROZEN

    def _score(self, reply: Reply) -> float:
        """The score; for an answer that is only foreseen, one that settles the question."""
        if not isinstance(reply, Answer):
            return reply
        far = self.margin + self.likely * self.spread**2 / self.margin
        return self.threshold + far if reply is Answer.TRUE else self.threshold - far


def _check_error(error: float) -> None:
    if not 0 < error < 1:
        raise ArgumentError(f"error is {error}; use a probability above 0 and below 1")
