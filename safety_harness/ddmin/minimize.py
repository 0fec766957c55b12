"""Call the oracle until the reduction ends: one question at a time, or several at once in threads."""

from __future__ import annotations

from asyncio import Task
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeAlias, TypeVar, Unpack

from safety_harness.ddmin.arguments import check_workers
from safety_harness.ddmin.errors import Unresolved, attach_partial
from safety_harness.ddmin.options import OptionArguments
from safety_harness.ddmin.reducer import Ask, Reducer
from safety_harness.ddmin.types import Answer, Question, Reduction, Reply, T

Call = TypeVar("Call", Future[Reply], Task[Reply])
Running: TypeAlias = dict[Question, tuple[Ask[T], Call]]
"""Oracle calls under way, in threads or as tasks."""
MOST_WORKERS = 64
"""Threads at most, where a function says how many workers there are."""


def minimize(
    units: Sequence[T],
    oracle: Callable[[tuple[T, ...]], float],
    *,
    workers: int | Callable[[], int] = 1,
    **options: Unpack[OptionArguments[T]],
) -> Reduction[T]:
    """Find a small subset of `units` that the oracle accepts, and say what is known about each unit in it.

    units: hashable, no two equal.
    oracle: takes a subset as a tuple in original order, and returns True or False, or a score with `noise=Scores`.
    workers: threads that call the oracle. In addition to the next question they answer the likeliest later ones.
        The result is the one of a single worker, sooner, for more calls in all (`Reduction.speculated`). A function
        is asked before each call how many there are at the moment, at least 1.
    options: strategy, weights, certificate, check_empty, max_calls, max_seconds, target_size, on_event, assume,
        noise, journal and fingerprint. `Options` explains each and gives its default.

    When a budget ends or on Ctrl-C, the best set so far is returned, with `stopped` set. A Ctrl-C before the full set
    was accepted propagates: there is nothing to return yet. The oracle may raise Unresolved to say that a question
    has no answer. Any other exception, from `on_event` as well, propagates unchanged and carries the best set so far:
    `partial_result(error)`.

    Raises:
        ArgumentError: an argument cannot be used.
        NotReproduced: the oracle does not accept the full set.
        BadAnswer: the oracle returned neither a bool nor, where one is expected, a score.
        JournalError: the journal cannot be used.
    """
    if not callable(workers):
        check_workers(workers)
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


def run_parallel(
    reducer: Reducer[T], oracle: Callable[[tuple[T, ...]], float], workers: int | Callable[[], int]
) -> None:
    """Answer a reducer's questions and likely later ones in threads. Results enter in the sequential order.

    An exception of the oracle counts when its question's turn comes. So a question that one worker would never have
    asked cannot end the run. Calls under way at the end are waited for, because threads cannot be stopped.
    """
    running: Running[T, Future[Reply]] = {}
    with ThreadPoolExecutor(MOST_WORKERS if callable(workers) else workers) as pool:  # threads start when needed
        try:
            while asks := reducer.ask_many(at_once := workers() if callable(workers) else workers):
                for ask in asks:
                    if ask.question not in running and busy(running) < at_once:
                        running[ask.question] = ask, pool.submit(call, oracle, ask.units)
                next_question = asks[0].question
                # The next question may have found all workers busy with guesses. Then any finished call frees one.
                if next_question not in running or not running[next_question][1].done():
                    wait([f for _, f in running.values() if not f.done()], return_when=FIRST_COMPLETED)
                hand_in(reducer, running, next_question)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def busy(running: Running[T, Call]) -> int:
    """Count the calls under way."""
    return sum(not future.done() for _, future in running.values())


def hand_in(reducer: Reducer[T], running: Running[T, Call], next_question: Question) -> None:
    """Tell the reducer all answers that have come. Raise an oracle's error only for `next_question`."""
    for question, (ask, future) in list(running.items()):
        # A guess that failed stays: should its turn come, its error is raised then.
        if not future.done() or (question != next_question and (future.cancelled() or future.exception() is not None)):
            continue
        del running[question]
        reducer.tell(ask, future.result())


def call(oracle: Callable[[tuple[T, ...]], float], units: tuple[T, ...]) -> Reply:
    """Return the oracle's answer, and Answer.UNRESOLVED if it raises Unresolved."""
    try:
        return oracle(units)
    except Unresolved:
        return Answer.UNRESOLVED


@contextmanager
def keeping_best(reducer: Reducer[T]) -> Iterator[None]:
    """Stop the reducer on Ctrl-C once it has a result. Attach the best set so far to any other exception."""
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
