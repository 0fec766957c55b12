"""The plain function: one question at a time, or several at once in threads."""

from __future__ import annotations

import os
from asyncio import Task
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Generic, TypeAlias, TypedDict, TypeVar

from safety_harness.ddmin.errors import ArgumentError, Unresolved, attach_partial
from safety_harness.ddmin.reducer import Ask, Reducer
from safety_harness.ddmin.sprt import Noise, Scores
from safety_harness.ddmin.types import Answer, Event, Level, Question, Reduction, Reply, T

Call = TypeVar("Call", Future[Reply], Task[Reply])
Running: TypeAlias = dict[Question, tuple[Ask[T], Call]]
"""Calls of the oracle under way, in threads or as tasks."""


class _Options(TypedDict, Generic[T]):
    """What `minimize` hands on."""

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


def minimize(
    units: Sequence[T],
    oracle: Callable[[tuple[T, ...]], float],
    *,
    strategy: str = "adaptive",
    weights: Sequence[float] | Callable[[T], float] | None = None,
    certificate: Level = "monotone",
    check_empty: bool = False,
    max_calls: int | None = None,
    max_seconds: float | None = None,
    target_size: int | None = None,
    workers: int = 1,
    on_event: Callable[[Event], None] | None = None,
    assume: Mapping[frozenset[T], bool] | None = None,
    noise: Noise | Scores | None = None,
    journal: str | os.PathLike[str] | None = None,
    fingerprint: str = "",
) -> Reduction[T]:
    """A small subset of `units` that the oracle accepts, with what is known about each unit in it.

    units: hashable, no two equal. oracle: gets a subset as a tuple in original order.
    strategy: a key of STRATEGIES; "adaptive" asks least, "ddmin" is the algorithm of 2002, for comparison.
    weights: one importance per unit, or a function of the unit; those of small weight are tried first, so those
        of large weight tend to stay. They change what is asked and which set is found, never what is promised of it.
    certificate: how well each kept unit must be shown to be needed:
        "none": the search alone;
        "monotone": each was missed by the oracle in some larger set. If the oracle is monotone (adding units
            never turns true into false), no proper subset is accepted. A few of these inferences are put to
            the test; if an answer shows that the oracle is not monotone, "explicit" takes over;
        "explicit", "confidence": the oracle is false on the result without that unit: 1-minimal, whatever
            the oracle is.
    check_empty: ask about the empty set right after the full one. A monotone oracle that accepts it is found
        out anyway, within log2 of the number of units.
    max_calls, max_seconds: budget of distinct oracle calls (the full set included) and of wall time, looked
        at before each call: a call under way is not cut short. target_size: stop at a set of so few units.
    workers: threads that call the oracle. Besides the next question they answer the likeliest later ones;
        the result is that of one worker, sooner, for more calls in all (`Reduction.speculated`).
    on_event: called at every step, from this thread, e.g. for a progress bar.
    assume: answers of this same oracle known beforehand, e.g. {frozenset(units): True}; they count as seen,
        are never asked, and cost no budget.
    noise: for an oracle that errs: Noise(flips) if some answers come out wrong, Scores(threshold, margin, spread)
        if it returns scores. Then no set is returned that it did not accept again and again.
    journal, fingerprint: a file that keeps every answer, and what identifies the oracle that gives them. A run
        that was killed, called again with both, asks nothing twice and ends with the same result.

    When the budget ends or on Ctrl-C the best set so far is returned, with `stopped` set; a Ctrl-C before the
    full set was accepted has nothing to return and propagates. The oracle may raise Unresolved to say that
    there is no answer. Any other exception, from `on_event` as well, propagates unchanged and carries the
    best set so far: `partial_result(error)`.

    Raises ArgumentError for arguments that cannot be used, NotReproduced if the oracle does not accept the
    full set, BadAnswer if it returns neither a bool nor, where one is expected, a score, JournalError if the
    journal cannot be used.
    """
    if workers < 1:
        raise ArgumentError(f"workers is {workers}; use 1 or more")
    options = _Options(
        strategy=strategy,
        weights=weights,
        certificate=certificate,
        check_empty=check_empty,
        max_calls=max_calls,
        max_seconds=max_seconds,
        target_size=target_size,
        on_event=on_event,
        assume=assume,
        noise=noise,
        journal=journal,
        fingerprint=fingerprint,
    )
    reducer = Reducer(units, **options)
    with keeping_best(reducer):
        if workers == 1:
            run(reducer, oracle)
        else:
            run_parallel(reducer, oracle, workers)
    return reducer.result()


def run(reducer: Reducer[T], oracle: Callable[[tuple[T, ...]], float]) -> None:
    """Answer every question of a reducer, one after the other."""
    while (ask := reducer.ask()) is not None:
        reducer.tell(ask, call(oracle, ask.units))


def run_parallel(reducer: Reducer[T], oracle: Callable[[tuple[T, ...]], float], workers: int) -> None:
    """Answer a reducer's questions and likely later ones in threads; results enter in the sequential order.

    An exception of the oracle counts when its question's turn comes, so a question that one worker would
    never have asked cannot end the run. Calls under way at the end are waited for: threads cannot be stopped.
    """
    running: Running[T, Future[Reply]] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            while asks := reducer.ask_many(workers):
                for ask in asks:
                    if ask.question not in running and busy(running) < workers:
                        running[ask.question] = ask, pool.submit(call, oracle, ask.units)
                head = asks[0].question
                if head not in running or not running[head][1].done():
                    wait([f for _, f in running.values() if not f.done()], return_when=FIRST_COMPLETED)
                hand_in(reducer, running, head)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def busy(running: Running[T, Call]) -> int:
    """How many calls are under way."""
    return sum(not future.done() for _, future in running.values())


def hand_in(reducer: Reducer[T], running: Running[T, Call], head: Question) -> None:
    """Tell the reducer all answers that have come; an error only if it is the head's."""
    for question, (ask, future) in list(running.items()):
        if not future.done() or (question != head and (future.cancelled() or future.exception() is not None)):
            continue
        del running[question]
        reducer.tell(ask, future.result())


def call(oracle: Callable[[tuple[T, ...]], float], units: tuple[T, ...]) -> Reply:
    """The oracle's answer, with Unresolved as an answer like the others."""
    try:
        return oracle(units)
    except Unresolved:
        return Answer.UNRESOLVED


@contextmanager
def keeping_best(reducer: Reducer[T]) -> Iterator[None]:
    """Ctrl-C stops the reducer, once it has a result; other exceptions carry its best set along."""
    try:
        yield
    except KeyboardInterrupt:
        if not reducer.has_result:
            raise
        reducer.stop("interrupted")
    except BaseException as error:
        if reducer.has_result:
            attach_partial(error, reducer.result())
        raise
    finally:
        reducer.close()
