"""Units that split: reduce coarse units first, then the parts of those that were kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic

from safety_harness.ddmin.errors import ArgumentError
from safety_harness.ddmin.reducer import Ask, Reducer
from safety_harness.ddmin.types import Level, Reduction, Reply, Stop, T

Split = Callable[[T], Sequence[T]]


class Refiner(Generic[T]):
    """A `Reducer` of units that split, level by level; the certificate is that of the finest level.

    split: the parts that together are the unit; none if it cannot be split. The oracle is asked about units of
        the current level, where a unit stands for all of its parts.
    Budgets hold for all levels together; `target_size` counts units of the finest. Each level has a journal of
    its own: `journal`, then `journal` with .1, .2, ... at the end.
    """

    def __init__(
        self,
        units: Sequence[T],
        split: Split[T],
        *,
        certificate: Level = "monotone",
        max_calls: int | None = None,
        max_seconds: float | None = None,
        target_size: int | None = None,
        assume: Mapping[frozenset[T], bool] | None = None,
        journal: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        weights = options.get("weights")
        if weights is not None and not callable(weights):
            raise ArgumentError("for units that split, give weights as a function of the unit")
        self._started = time.monotonic()
        self._split = split
        self._options = options
        self._certificate, self._target_size = certificate, target_size
        self._max_calls, self._max_seconds = max_calls, max_seconds
        self._journal = journal
        self._done: list[Reduction[T]] = []
        self._begin(units, assume or {})

    def ask(self) -> Ask[T] | None:
        """The next question, as in `Reducer.ask`."""
        ask = self._reducer.ask()
        while ask is None and self._descend():
            ask = self._reducer.ask()
        return ask

    def ask_many(self, wanted: int) -> list[Ask[T]]:
        """The next question and likely later ones of the same level, as in `Reducer.ask_many`."""
        return [] if self.ask() is None else self._reducer.ask_many(wanted)

    def tell(self, ask: Ask[T], answer: Reply) -> None:
        """The oracle's answer, as in `Reducer.tell`; one to a question of an earlier level is of no use any more."""
        if ask.level == len(self._done):
            self._reducer.tell(ask, answer)

    def stop(self, reason: Stop) -> None:
        """End the reduction here."""
        self._reducer.stop(reason)

    @property
    def has_result(self) -> bool:
        """Whether a set has been accepted yet."""
        return self._reducer.has_result

    def result(self) -> Reduction[T]:
        """The result over all levels: `removed` holds units of every level, `history` sizes of each in turn."""
        last = self._reducer.result()
        levels = [*self._done, last]
        before = [sum(level.calls for level in levels[:k]) for k in range(len(levels))]
        return replace(
            last,
            removed=tuple(unit for level in levels for unit in level.removed),
            monotone=all(level.monotone for level in levels),
            calls=sum(level.calls for level in levels),
            cached=sum(level.cached for level in levels),
            replayed=sum(level.replayed for level in levels),
            repeats=sum(level.repeats for level in levels),
            disagreements=sum(level.disagreements for level in levels),
            frozen=any(level.frozen for level in levels),
            speculated=sum(level.speculated for level in levels),
            seconds=time.monotonic() - self._started,
            history=tuple(
                (calls + so_far, size)
                for so_far, level in zip(before, levels, strict=True)
                for calls, size in level.history
            ),
        )

    def close(self) -> None:
        """Let go of the journal."""
        self._reducer.close()

    def _begin(self, units: Sequence[T], assume: Mapping[frozenset[T], bool]) -> None:
        depth = len(self._done)
        self._finest = not any(self._parts(unit) for unit in units)
        self._reducer = Reducer(
            units,
            certificate=self._certificate if self._finest else "none",
            max_calls=None if self._max_calls is None else self._max_calls - sum(level.calls for level in self._done),
            max_seconds=self._seconds_left(),
            target_size=self._target_size if self._finest else None,
            assume=assume,
            journal=self._journal if self._journal is None or depth == 0 else f"{os.fspath(self._journal)}.{depth}",
            level=depth,
            **self._options,
        )

    def _descend(self) -> bool:
        """Go on with the parts of what was kept; False at the end."""
        if self._finest or not self._reducer.has_result:
            return False
        coarse = self._reducer.result()
        spent = self._max_calls is not None and sum(level.calls for level in [*self._done, coarse]) >= self._max_calls
        if coarse.stopped is not None or not coarse.kept or spent:
            if spent and coarse.kept:
                self._reducer.stop("calls")
            return False
        parts = {unit: tuple(self._parts(unit)) or (unit,) for unit in coarse.kept}
        known = self._reducer.known_within(coarse.kept)
        assume = {frozenset(part for unit in kept for part in parts[unit]): answer for kept, answer in known.items()}
        self._reducer.close()
        self._done.append(coarse)
        self._begin([part for unit in coarse.kept for part in parts[unit]], assume)
        return True

    def _parts(self, unit: T) -> Sequence[T]:
        parts = self._split(unit)
        return () if len(parts) == 1 and parts[0] == unit else parts

    def _seconds_left(self) -> float | None:
        if self._max_seconds is None:
            return None
        return max(self._max_seconds - (time.monotonic() - self._started), 1e-9) if self._done else self._max_seconds
