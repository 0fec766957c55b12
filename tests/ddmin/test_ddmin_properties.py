"""Check every promise of `safety_harness.ddmin`, over arbitrary oracles, for every strategy."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from math import ceil, log2

import pytest
from hypothesis import assume as given_that
from hypothesis import event, given
from hypothesis import strategies as st

from safety_harness import ddmin
from safety_harness.ddmin import Answer, Event, Reduction, Unresolved, partial_result
from safety_harness.ddmin.certify import Certify

Subset = tuple[str, ...]
Oracle = Callable[[Subset], bool]
UNITS = tuple(f"u{i:02}" for i in range(40))
strategies = st.sampled_from(["adaptive", "halving", "ddmin"])
minimize = partial(ddmin.minimize, certificate="explicit", check_empty=True)


class Recorder:
    """An oracle that keeps every question in order, and fails on a repeat or a set out of order."""

    def __init__(self, oracle: Oracle, units: Subset, fail_at: int | None = None, error: type = OSError) -> None:
        self.oracle, self.units, self.fail_at, self.error = oracle, units, fail_at, error
        self.asked: dict[Subset, bool | None] = {}

    def __call__(self, subset: Subset) -> bool:
        assert isinstance(subset, tuple)
        assert subset not in self.asked, "asked twice"
        assert subset == tuple(u for u in self.units if u in subset), "not in original order"
        if len(self.asked) + 1 == self.fail_at:
            raise self.error("the oracle broke")
        self.asked[subset] = None  # stays so if the oracle raises Unresolved
        self.asked[subset] = answer = self.oracle(subset)
        return answer


@st.composite
def tables(draw: st.DrawFn, unresolved: bool = False) -> tuple[Subset, Oracle]:
    """Draw any function of the subsets of up to 6 units that is true on all units; some subsets have no answer."""
    units = UNITS[: draw(st.integers(1, 6))]
    size = 2 ** len(units)
    table = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    void = draw(st.lists(st.booleans(), min_size=size, max_size=size)) if unresolved else [False] * size

    def oracle(subset: Subset) -> bool:
        index = sum(1 << units.index(u) for u in subset)
        if len(subset) < len(units) and void[index]:
            raise Unresolved
        return len(subset) == len(units) or table[index]

    return units, oracle


@st.composite
def noise_like(draw: st.DrawFn) -> tuple[Subset, Oracle]:
    """Draw a function without any structure: each subset of up to 14 units is true by a coin of its own."""
    units = UNITS[: draw(st.integers(2, 14))]
    seed, chance = draw(st.integers(0, 2**32)), draw(st.floats(0.02, 0.9))

    def oracle(subset: Subset) -> bool:
        return len(subset) == len(units) or random.Random(f"{seed}{subset}").random() < chance

    return units, oracle


@st.composite
def thresholds(draw: st.DrawFn, low: int = -20) -> tuple[Subset, Oracle]:
    """Draw weights, some negative unless low > 0, whose sum must reach a share of the total."""
    worth = draw(st.lists(st.integers(low, 50), min_size=1, max_size=len(UNITS)))
    given_that(sum(worth) > 0)
    need = draw(st.floats(0.05, 1)) * sum(worth)
    weight = dict(zip(UNITS, worth, strict=False))
    return UNITS[: len(worth)], lambda subset: sum(weight[u] for u in subset) >= need


@st.composite
def conjunctions(draw: st.DrawFn) -> tuple[Subset, Subset]:
    """Draw units, and which of them are needed."""
    units = UNITS[: draw(st.integers(1, len(UNITS)))]
    return units, tuple(sorted(draw(st.sets(st.sampled_from(units)))))


problems = st.one_of(tables(), noise_like(), thresholds())
priors = st.one_of(st.none(), st.integers(0, 2**16))


def prior(units: Subset, seed: int | None) -> list[float] | None:
    """Return weights without any relation to the oracle."""
    return None if seed is None else [random.Random(f"{seed}{u}").gauss(0, 3) for u in units]


def expected_evidence(result: Reduction[str], asked: dict[Subset, bool | None], unit: str) -> str:
    """Work out from the questions alone what may be claimed for one kept unit."""
    without = set(result.kept) - {unit}
    direct = asked.get(tuple(u for u in result.kept if u != unit), True)
    if direct is not True:
        return "unresolved" if direct is None else "tested"
    refused = [set(subset) for subset, answer in asked.items() if answer is False]
    if not any(without <= subset and unit not in subset for subset in refused):
        return "untested"
    accepted = [set(subset) for subset, answer in asked.items() if answer is True]
    return "stale" if any(a <= r for a in accepted for r in refused) else "inferred"


def check_honest(result: Reduction[str], recorder: Recorder) -> None:
    """Check order, partition, and that the recorder saw everything that the result claims."""
    units, asked = recorder.units, recorder.asked
    assert result.kept == tuple(u for u in units if u in result.kept)
    assert result.removed == tuple(u for u in units if u not in result.kept)
    assert asked[result.kept] is True
    assert result.calls == len(asked)
    assert set(result.certificate) == set(result.kept)
    for unit, evidence in result.certificate.items():
        assert evidence == expected_evidence(result, asked, unit)
    assert result.minimal == all(e == "tested" for e in result.certificate.values())
    sizes = [size for _, size in result.history]
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[0] == len(units)
    assert sizes[-1] == len(result.kept)


@given(problems, strategies, priors)
def test_accepted_ordered_one_minimal_and_bounded_for_any_oracle(
    problem: tuple[Subset, Oracle], strategy: str, seed: int | None
) -> None:
    units, oracle = problem
    recorder = Recorder(oracle, units)
    result = minimize(units, recorder, strategy=strategy, weights=prior(units, seed))
    check_honest(result, recorder)
    assert oracle(result.kept)
    assert not any(oracle(tuple(u for u in result.kept if u != unit)) for unit in result.kept)
    assert result.minimal
    assert result.stopped is None
    assert (result.kept == ()) == oracle(())
    n = len(units)
    search = {"adaptive": n * (1 + ceil(log2(n))), "halving": n * (n + 5) // 2, "ddmin": n * n + 3 * n}[strategy]
    assert result.calls <= 2 + 2 * search + n * (n + 1) // 2


@given(conjunctions(), strategies, priors)
def test_exact_core_of_a_conjunction(problem: tuple[Subset, Subset], strategy: str, seed: int | None) -> None:
    units, core = problem
    recorder = Recorder(lambda subset: set(core) <= set(subset), units)
    result = minimize(units, recorder, strategy=strategy, weights=prior(units, seed))
    check_honest(result, recorder)
    assert result.kept == core
    n, k = len(units), len(core)
    if strategy == "adaptive":  # both ends; k bisections; at worst one call per removable unit; the proof
        assert result.calls <= 2 + k * (1 + ceil(log2(n))) + (n - k) + k


@given(thresholds(low=1), priors)
def test_additive_thresholds_cost_little_more_than_their_proof(
    problem: tuple[Subset, Oracle], seed: int | None
) -> None:
    units, oracle = problem
    result = minimize(units, oracle, weights=prior(units, seed))
    assert result.calls <= 2 * len(result.kept) + 3 * ceil(log2(len(units) + 1)) + 30


@given(st.one_of(tables(), noise_like()), st.randoms(use_true_random=False))
def test_the_proof_alone_makes_any_accepted_set_one_minimal(problem: tuple[Subset, Oracle], rng: random.Random) -> None:
    units, oracle = problem
    kept = frozenset(range(len(units)))
    plan = Certify(rng.sample(range(len(units)), len(units)))
    while (question := plan.question()) is not None:
        asked = frozenset(i for i in range(len(units)) if question >> i & 1)
        accepted = oracle(tuple(units[i] for i in sorted(asked)))
        kept = asked if accepted else kept
        plan.tell(Answer.TRUE if accepted else Answer.FALSE)
    assert sum(1 << i for i in kept) == plan.kept
    assert not any(oracle(tuple(units[i] for i in sorted(kept - {gone}))) for gone in kept)


@given(problems, strategies, st.integers(1, 60))
def test_every_kind_of_stop_keeps_the_best_so_far(problem: tuple[Subset, Oracle], strategy: str, budget: int) -> None:
    units, oracle = problem
    whole = minimize(units, oracle, strategy=strategy)
    recorder = Recorder(oracle, units)
    stopped = minimize(units, recorder, strategy=strategy, max_calls=budget)
    check_honest(stopped, recorder)
    assert stopped.calls == min(budget, whole.calls)
    assert stopped.history == tuple(entry for entry in whole.history if entry[0] <= budget)
    if budget >= whole.calls:
        assert stopped.stopped is None
        assert stopped.kept == whole.kept
        return
    event("stopped early")
    assert stopped.stopped == "calls"
    cut = Recorder(oracle, units, fail_at=budget + 1, error=KeyboardInterrupt)
    interrupted = minimize(units, cut, strategy=strategy)
    assert (interrupted.kept, interrupted.stopped) == (stopped.kept, "interrupted")
    assert interrupted.certificate == stopped.certificate
    with pytest.raises(OSError, match="the oracle broke") as caught:
        minimize(units, Recorder(oracle, units, fail_at=budget + 1), strategy=strategy)
    partial = partial_result(caught.value)
    assert partial is not None
    assert (partial.kept, partial.certificate) == (stopped.kept, stopped.certificate)


@given(tables(unresolved=True), strategies, priors)
def test_unresolved_is_neither_true_nor_false(problem: tuple[Subset, Oracle], strategy: str, seed: int | None) -> None:
    units, oracle = problem
    recorder = Recorder(oracle, units)
    result = minimize(units, recorder, strategy=strategy, weights=prior(units, seed))
    check_honest(result, recorder)
    assert set(result.certificate.values()) <= {"tested", "unresolved"}
    assert result.stopped is None


@given(problems, strategies, priors)
def test_known_answers_are_not_asked_again(problem: tuple[Subset, Oracle], strategy: str, seed: int | None) -> None:
    units, oracle = problem
    recorder = Recorder(oracle, units)
    weights = prior(units, seed)
    first = minimize(units, recorder, strategy=strategy, weights=weights)
    known = {frozenset(subset): answer is True for subset, answer in recorder.asked.items()}
    again = minimize(units, Recorder(oracle, units, fail_at=1), strategy=strategy, weights=weights, assume=known)
    assert (again.kept, again.certificate, again.calls) == (first.kept, first.certificate, 0)
    assert again.cached == first.calls + first.cached


@given(problems, strategies)
def test_events_tell_the_whole_run(problem: tuple[Subset, Oracle], strategy: str) -> None:
    units, oracle = problem
    events: list[Event] = []
    recorder = Recorder(oracle, units)
    result = minimize(units, recorder, strategy=strategy, on_event=events.append)
    asked = [e for e in events if e.kind == "asked"]
    answered = [e for e in events if e.kind == "answered"]
    assert [e.calls for e in asked] == [e.calls for e in answered] == list(range(1, result.calls + 1))
    assert [(e.size, e.answer) for e in answered] == [(len(s), a) for s, a in recorder.asked.items()]
    assert [(e.calls, e.size) for e in events if e.kind == "accepted"] == list(result.history)
    phases = [e.phase for e in events if e.kind == "phase"]
    assert phases[0] == "check"
    assert "check" not in phases[1:]
    assert phases[1:] in ([], ["certify"], ["search", "certify"], ["search", "certify", "search", "certify"])
    assert phases[-1] == ("certify" if result.kept else "check")
    assert [e.best for e in events if e.kind == "accepted"] == [size for _, size in result.history]
    assert all(e.estimate >= 0 for e in events)


@given(strategies, st.integers(2, 30), st.randoms(use_true_random=False))
def test_important_units_stay_when_either_would_do(strategy: str, n: int, rng: random.Random) -> None:
    """Let any single unit be enough: the heaviest must be the one that is kept."""
    units = UNITS[:n]
    weights = [float(w) for w in rng.sample(range(1000), n)]
    result = minimize(units, lambda subset: bool(subset), strategy=strategy, weights=weights)
    assert result.kept == (units[weights.index(max(weights))],)
