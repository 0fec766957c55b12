"""Decide by repeated answers: Wald's sequential probability ratio test, for answers that flip and for scores.

A test adds up evidence, one measurement at a time. It ends when the evidence leads far enough to one side. The chance
of the wrong side is then at most the tolerated error. Wald, Sequential Tests of Statistical Hypotheses, Annals of
Mathematical Statistics 16(2), 1945: section 4 for right or wrong, section 6 for the mean of a normal distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, log
from statistics import fmean

from safety_harness.ddmin.errors import ArgumentError
from safety_harness.ddmin.types import Answer, Reply

# Tolerated chance that one step of the search goes wrong. The search can go back, so haste pays. With 0.01, oracles
# that flip 2 % of their answers cost 72 % more calls on the cells of benchmarks/ddmin: each success takes two answers.
# With 0.2, scores cost 17 % more, because the search goes back more often.
_HASTY = 0.05
# Tolerated chance that a kept unit is not needed, where confidence is asked for.
_CERTAIN = 1e-3
# Significance level: agreement of the repeats that is less likely shows that they are copies of one answer.
_FROZEN = 0.01
# Chance that two measured scores are equal. Real scores hardly ever are; a half allows for coarse rounding.
_TIE = 0.5


@dataclass(frozen=True)
class Noise:
    """A share of wrong answers, and how sure the result must be.

    flips: the share of answers that come out wrong, 0 < flips < 0.5. Answers, repeats included, err independently. A
        repeat is evidence only if it is a new measurement: fresh seeds or other samples.
    error: tolerated probability that the returned set is not one that the oracle truly accepts. A long search gives
        chance many openings, so more units need more answers.

    Evidence is counted in answers: those for a set less those against it.
    """

    flips: float = 0.02
    error: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.flips < 0.5:
            raise ArgumentError(f"flips is {self.flips}; use a share above 0 and below 0.5")
        _check_error(self.error)

    def sure(self, units: int) -> float:
        """Return by how many answers one side must lead to settle a question for good, in a search over `units`."""
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
        """Return whether the search goes on as if the set were not enough."""
        return sum(map(self.weight, replies)) <= -self.likely

    @property
    def certain(self) -> float:
        """By how many refusals a kept unit counts as tested, where confidence is asked for."""
        return self._lead(_CERTAIN)

    @property
    def vouches(self) -> float:
        """How much evidence for a set an accepted subset is: as much as an answer."""
        return 1

    def weight(self, reply: Reply) -> float:
        """Return how much evidence for a set one answer is; negative against it."""
        return 1 if reply is Answer.TRUE else -1

    def plain(self, reply: Reply) -> Answer:
        """Return one answer, taken as it is."""
        return Answer.TRUE if reply is Answer.TRUE else Answer.FALSE

    def frozen(self, repeats: int, disagreements: int) -> bool:
        """Return whether repeats agree too well to be measurements of their own."""
        # Two answers agree if both are right or both wrong. At the stated rate, some of many repeats would disagree.
        agree = (1 - self.flips) ** 2 + self.flips**2
        return disagreements == 0 and agree**repeats < _FROZEN

    def _lead(self, error: float) -> int:
        """Return Wald's bound in answers: each is worth the log of how much likelier right is than wrong."""
        return ceil(log(1 / error) / log((1 - self.flips) / self.flips))


@dataclass(frozen=True)
class Scores:
    """A threshold for scores with measurement error, and how sure the result must be.

    threshold: a set is enough if its true score, the mean of many measurements, is at least this.
    margin: a set whose true score lies this far below the threshold must not be returned. Of sets in between, some may
        be returned. A smaller margin takes more repeats, in proportion to (spread / margin) ** 2.
    spread: the standard deviation of one measurement. Measure the full set a few times to learn it. For a share of
        m questions it is about (share * (1 - share) / m) ** 0.5.
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
        """Return by how much one side must lead to settle a question for good, in a search over `units`."""
        return log(max(units, 1) / self.error)

    @property
    def likely(self) -> float:
        """By how much evidence a set must lead for the search to go on from it."""
        return log(1 / _HASTY)

    @property
    def doubtful(self) -> float:
        """At what lead a set that the search went on from is taken back."""
        return 0

    def refused(self, replies: Sequence[Reply]) -> bool:
        """Return whether the search goes on as if the set were not enough: when its mean is below the threshold.

        Aiming at the threshold itself keeps the search away from sets inside the margin, which take many repeats. Going
        by the middle of the margin, as the test alone would, costs 78 % more calls on the cells of benchmarks/ddmin. A
        wrong refusal costs a few units at most.
        """
        return fmean(self._score(reply) for reply in replies) < self.threshold

    @property
    def certain(self) -> float:
        """By how much the evidence against a set must lead where confidence is asked for."""
        return log(1 / _CERTAIN)

    @property
    def vouches(self) -> float:
        """How much evidence for a set an accepted subset is: as much as it took to go on from the subset."""
        return self.likely

    def weight(self, reply: Reply) -> float:
        """Return how much evidence for a set one score is; negative against it.

        It is the log of how much likelier the score is at the threshold than at the lower end of the margin.
        """
        return self.margin / self.spread**2 * (self._score(reply) - self.threshold + self.margin / 2)

    def plain(self, reply: Reply) -> Answer:
        """Return the answer that one score amounts to, taken as it is."""
        return Answer.TRUE if self._score(reply) >= self.threshold else Answer.FALSE

    def frozen(self, repeats: int, disagreements: int) -> bool:
        """Return whether repeats are equal too often to be measurements of their own."""
        return disagreements == 0 and _TIE**repeats < _FROZEN

    def _score(self, reply: Reply) -> float:
        """Return the score; for an answer that is only forecast, a score that settles the question."""
        if not isinstance(reply, Answer):
            return reply
        far = self.margin + self.likely * self.spread**2 / self.margin
        return self.threshold + far if reply is Answer.TRUE else self.threshold - far


def _check_error(error: float) -> None:
    """Raise ArgumentError unless the tolerated error is a probability."""
    if not 0 < error < 1:
        raise ArgumentError(f"error is {error}; use a probability above 0 and below 1")
