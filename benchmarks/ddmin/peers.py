"""Call published reducers by one signature, `peer(units, test) -> kept`, for the delta-debugging benchmarks.

picire: `DD` with its own `ConfigCache`, in both of its modes: subsets first, which is its default, and subsets skipped.
lithium-reducer: its `minimize` strategy, one unit a line.
hypothesis: its shrinker of collections, run to its fixpoint, with elements that cannot be made simpler.
shrinkray: its pass that deletes elements, repeated to its fixpoint, with one worker and one element a unit.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

Units = tuple[int, ...]
Test = Callable[[Units], bool]
Peer = Callable[[Units, Test], Units]


def picire(units: Units, test: Test) -> Units:
    """Reduce by picire with its defaults."""
    return _picire(units, test, skip_subsets=False)


def picire_skip(units: Units, test: Test) -> Units:
    """Reduce by picire, which tries complements only."""
    return _picire(units, test, skip_subsets=True)


def _picire(units: Units, test: Test, *, skip_subsets: bool) -> Units:
    from picire import DD, ConfigCache, Outcome, config_iterators

    def outcome(config: list[int], _: object) -> object:
        return Outcome.FAIL if test(tuple(config)) else Outcome.PASS

    iterator = config_iterators.skip if skip_subsets else config_iterators.forward
    return tuple(DD(outcome, cache=ConfigCache(), subset_iterator=iterator)(list(units)))


def lithium(units: Units, test: Test) -> Units:
    """Reduce by lithium."""
    from lithium.strategies import Minimize
    from lithium.testcases import TestcaseLine

    case = TestcaseLine()
    case.parts = [b"%d\n" % unit for unit in units]
    case.reducible = [True] * len(units)
    iterator = Minimize().reduce(case)
    for attempt in iterator:
        iterator.feedback(test(_lines(attempt.parts)))
    return _lines(iterator.testcase.parts)


def _lines(parts: list[bytes]) -> Units:
    return tuple(int(part) for part in parts)


def hypothesis(units: Units, test: Test) -> Units:
    """Reduce by the shrinker of Hypothesis."""

    from hypothesis.internal.conjecture.shrinking.collection import Collection

    class Nothing:
        """Elements stay as they are."""

        @classmethod
        def shrink(cls, *_: object, **__: object) -> None: ...

    return Collection.shrink(
        units,
        lambda value: -1 not in value and test(value),
        full=True,
        ElementShrinker=Nothing,
        min_size=0,
        to_order=lambda _: 0,
        from_order=lambda _: -1,
    )


def shrinkray(units: Units, test: Test) -> Units:
    """Reduce by Shrink Ray."""
    import trio
    from shrinkray.passes.sequences import delete_elements
    from shrinkray.problem import BasicReductionProblem
    from shrinkray.work import WorkContext

    async def interesting(value: list[int]) -> bool:
        return test(tuple(value))

    async def main() -> Units:
        problem = BasicReductionProblem(
            initial=list(units), is_interesting=interesting, work=WorkContext(parallelism=1), sort_key=len
        )
        await problem.setup()
        before = None
        while before != problem.current_test_case:
            before = problem.current_test_case
            await delete_elements(problem)
        return tuple(problem.current_test_case)

    return trio.run(main)


PEERS: dict[str, Peer] = {
    "picire": picire,
    "picire skip": picire_skip,
    "lithium": lithium,
    "Hypothesis": hypothesis,
    "Shrink Ray": shrinkray,
}


def versions() -> str:
    """Return names and versions of the peers."""
    return ", ".join(f"{name} {version(name)}" for name in ("picire", "lithium-reducer", "hypothesis", "shrinkray"))
