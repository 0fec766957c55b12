"""Call an oracle that must be awaited: a service, a queue, a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Unpack

from safety_harness.ddmin.arguments import check_workers
from safety_harness.ddmin.errors import Unresolved
from safety_harness.ddmin.minimize import Running, busy, hand_in, keeping_best
from safety_harness.ddmin.options import OptionArguments
from safety_harness.ddmin.reducer import Reducer
from safety_harness.ddmin.types import Answer, Reduction, Reply, T


async def minimize_async(
    units: Sequence[T],
    oracle: Callable[[tuple[T, ...]], Awaitable[float]],
    *,
    workers: int = 1,
    **options: Unpack[OptionArguments[T]],
) -> Reduction[T]:
    """Run `minimize` with an asynchronous oracle: same options, same result, up to `workers` questions in flight.

    Questions in flight when it ends, for whatever reason, are cancelled and awaited. A cancellation of this
    coroutine propagates and carries the best set so far: `partial_result(error)`.
    """
    check_workers(workers)
    reducer = Reducer(units, **options)
    with keeping_best(reducer):
        await _run(reducer, oracle, workers)
    return reducer.result()


async def _run(reducer: Reducer[T], oracle: Callable[[tuple[T, ...]], Awaitable[float]], workers: int) -> None:
    """Answer a reducer's questions as `run_parallel` does, with tasks instead of threads. Leave no task running."""
    running: Running[T, asyncio.Task[Reply]] = {}
    try:
        while asks := reducer.ask_many(workers):
            for ask in asks:
                if ask.question not in running and busy(running) < workers:
                    running[ask.question] = ask, asyncio.create_task(_call(oracle, ask.units))
            next_question = asks[0].question
            if next_question not in running or not running[next_question][1].done():
                await asyncio.wait(
                    [t for _, t in running.values() if not t.done()], return_when=asyncio.FIRST_COMPLETED
                )
            hand_in(reducer, running, next_question)
    finally:
        tasks = [task for _, task in running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _call(oracle: Callable[[tuple[T, ...]], Awaitable[float]], units: tuple[T, ...]) -> Reply:
    """Await the oracle's answer. Return Answer.UNRESOLVED if it raises Unresolved."""
    try:
        return await oracle(units)
    except Unresolved:
        return Answer.UNRESOLVED
