"""Check fixed cases of `safety_harness.ddmin`: exact call counts, both ends, bad input, proofs."""

from __future__ import annotations

import ast
import pickle
import random
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, get_type_hints

import pytest

import safety_harness.ddmin as package
from safety_harness.ddmin import Answer, Event
from safety_harness.ddmin.certify import Certify
from safety_harness.ddmin.errors import ArgumentError, DdminError, NotReproduced, Unresolved
from safety_harness.ddmin.options import OptionArguments, Options
from tests.ddmin.shared import EACH, minimize, needs


def additive(n: int, share: float, seed: int) -> tuple[list[float], Callable[[tuple[int, ...]], bool]]:
    """Return weights, and an oracle that accepts the sets that reach this share of their sum."""
    rng = random.Random(seed)
    weights = [rng.expovariate(1) for _ in range(n)]
    need = share * sum(weights)
    return weights, lambda subset: sum(weights[i] for i in subset) >= need


@pytest.mark.parametrize(
    ("n", "required", "adaptive", "halving", "ddmin"),
    [
        (1, (0,), 2, 2, 2),
        (8, (3,), 6, 7, 6),
        (56, (17,), 12, 11, 12),
        (56, (3, 20, 41), 29, 33, 74),
        (56, tuple(range(24, 32)), 30, 20, 67),
        (56, tuple(range(56)), 64, 112, 220),
    ],
)
def test_exact_calls_of_conjunctions(
    n: int, required: tuple[int, ...], adaptive: int, halving: int, ddmin: int
) -> None:
    results = {name: minimize(range(n), needs(*required), strategy=name) for name in package.STRATEGIES}
    assert {name: result.kept for name, result in results.items()} == dict.fromkeys(results, required)
    assert {name: result.calls for name, result in results.items()} == {
        "adaptive": adaptive,
        "halving": halving,
        "ddmin": ddmin,
    }


def test_exact_calls_of_an_additive_threshold() -> None:
    weights, oracle = additive(56, 0.5, seed=1)
    plain = minimize(range(56), oracle)
    informed = minimize(range(56), oracle, weights=weights)
    assert (len(plain.kept), plain.calls) == (20, 37)
    assert (len(informed.kept), informed.calls) == (11, 18)
    assert informed.kept == tuple(sorted(sorted(range(56), key=lambda i: weights[i])[-len(informed.kept) :]))


def test_additive_thresholds_cost_few_calls_beyond_the_result() -> None:
    """Check over 56 units: the calls exceed the units kept by a few dozen."""
    extra = []
    for seed in range(20):
        for share in (0.5, 0.8):
            result = minimize(range(56), additive(56, share, seed)[1])
            assert result.minimal
            extra.append(result.calls - len(result.kept))
    assert median(extra) <= 27.5
    assert max(extra) <= 53


@EACH
def test_empty_set_accepted_is_found_in_two_calls_and_said(strategy: str) -> None:
    result = minimize("abcdef", lambda _: True, strategy=strategy)
    assert (result.kept, result.removed, result.calls) == ((), tuple("abcdef"), 2)
    assert result.minimal
    assert result.certificate == {}
    assert str(result) == "0 of 6 units: the oracle accepts the empty set"


@EACH
def test_no_units(strategy: str) -> None:
    none: tuple[str, ...] = ()
    result = minimize(none, lambda _: True, strategy=strategy)
    assert (result.kept, result.calls, result.minimal) == ((), 1, True)
    with pytest.raises(NotReproduced, match="full set of 0 units"):
        minimize(none, lambda _: False, strategy=strategy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": ["a", "b", "a"]}, r"units 0 and 2 are equal \('a'\)"),
        ({"units": ["a", ["b"]]}, r"unit 1 \(\['b'\]\) is not hashable"),
        ({"strategy": "quick"}, "unknown strategy 'quick'; choose one of: adaptive, ddmin, halving"),
        ({"weights": [1.0]}, "1 weights for 3 units"),
        ({"weights": [1.0, float("nan"), 2.0]}, "weight of unit 1 is nan"),
        ({"max_calls": 0}, "max_calls is 0"),
        ({"max_seconds": 0}, "max_seconds is 0"),
        ({"max_seconds": float("nan")}, "max_seconds is nan"),
        ({"target_size": -1}, "target_size is -1"),
        ({"certificate": "sure"}, "unknown certificate 'sure'; choose one of: none, monotone, explicit, confidence"),
        ({"workers": 0}, "workers is 0"),
        ({"assume": {frozenset("az"): True}}, "assume names 'z'"),
        ({"assume": {frozenset("a"): None}}, "assume holds None"),
    ],
)
def test_bad_arguments_are_refused_before_any_call(arguments: dict[str, Any], message: str) -> None:
    def oracle(_: tuple[str, ...]) -> bool:
        pytest.fail("asked")

    with pytest.raises(ArgumentError, match=message) as caught:
        minimize(arguments.pop("units", "abc"), oracle, **arguments)
    assert isinstance(caught.value, DdminError)
    assert isinstance(caught.value, ValueError)


def test_assumed_ends_cost_no_call() -> None:
    known = {frozenset(range(8)): True, frozenset[int](): False}
    free, full = minimize(range(8), needs(3), assume=known), minimize(range(8), needs(3))
    assert (free.kept, free.calls, free.cached) == (full.kept, full.calls - 2, full.cached + 2)
    assert free.history[0] == (0, 8)


def test_unresolved_removal_leaves_the_result_unproven() -> None:
    def oracle(subset: tuple[int, ...]) -> bool:
        if subset == (2,):
            raise Unresolved
        return {2} < set(subset)

    result = minimize(range(4), oracle)
    assert len(result.kept) == 2
    assert not result.minimal
    assert result.certificate == {2: "tested"} | {u: "unresolved" for u in result.kept if u != 2}


def test_successes_in_a_row_double_the_runs_of_the_proof() -> None:
    """Prove an accepted set of 100 units of which only the last is needed."""
    proof = Certify(range(100))
    sizes = []
    while (question := proof.question()) is not None:
        sizes.append((proof.kept ^ question).bit_count())
        proof.tell(Answer.TRUE if question >> 99 else Answer.FALSE)
    assert proof.kept == 1 << 99
    assert sizes == [1, 1, 2, 4, 8, 16, 32, 36, 1, 1, 2, 4, 8, 16, 4, 1, 1, 2, 1, 1]


def test_a_success_of_the_proof_sends_it_round_again() -> None:
    """Let the search drop 3 alone. The proof finds 0 needed and 1 not. Once 1 has gone, 0 can go as well."""
    accepted = [{0, 1, 2, 3}, {0, 1, 2}, {0, 2}, {2}]
    result = minimize(range(4), lambda subset: set(subset) in accepted)
    assert (result.kept, result.minimal) == ((2,), True)


def test_results_and_events_can_be_sent_to_another_process() -> None:
    events: list[Event] = []
    result = minimize("abcd", lambda subset: "c" in subset, on_event=events.append)
    assert pickle.loads(pickle.dumps((result, events))) == (result, events)


def test_the_package_imports_nothing_but_the_standard_library() -> None:
    allowed = sys.stdlib_module_names | {"safety_harness.ddmin"}
    paths = sorted(Path(package.__path__[0]).glob("*.py"))
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    assert {".".join(n.split(".")[: 2 if n.startswith("safety_harness") else 1]) for n in names} <= allowed


def turns_non_monotone(subset: tuple[int, ...]) -> bool:
    """Accept sets that hold 0, 4, ... 60. Once 63 has gone, 0 is no longer needed."""
    needed = set(range(0, 64, 4))
    return needed <= set(subset) or (63 not in subset and needed - {0} <= set(subset))


def test_an_audit_against_monotonicity_turns_explicit_tests_on() -> None:
    """Check the result and the event of a reduction whose audit succeeds, and that none happens without a proof."""
    events: list[Event] = []
    result = package.minimize(range(64), turns_non_monotone, on_event=events.append)
    assert result.kept == tuple(range(4, 64, 4))
    assert (result.monotone, result.minimal) == (False, True)
    assert set(result.certificate.values()) == {"tested"}
    distrusted = next(event for event in events if event.kind == "distrusted")
    assert distrusted.phase == "certify"
    trusting = package.minimize(range(64), turns_non_monotone, certificate="none")
    assert trusting.kept == tuple(range(0, 64, 4))
    assert (trusting.monotone, trusting.minimal) == (True, False)
    assert str(trusting) == "16 of 64 units, 1-minimal if the oracle is monotone"


def test_evidence_is_stale_after_monotonicity_is_refuted() -> None:
    result = package.minimize(range(64), turns_non_monotone, max_calls=calls_until_distrust())
    assert not result.monotone
    assert set(result.certificate.values()) == {"stale"}
    assert str(result).endswith("not proven minimal, stopped: calls")


def calls_until_distrust() -> int:
    """Return how many calls it takes until an answer refutes monotonicity."""
    events: list[Event] = []
    package.minimize(range(64), turns_non_monotone, on_event=events.append)
    return next(event.calls for event in events if event.kind == "distrusted")


@pytest.mark.parametrize(
    ("certificate", "calls", "evidence"),
    [("none", 92, {"inferred"}), ("monotone", 93, {"inferred", "tested"}), ("explicit", 108, {"tested"})],
)
def test_what_each_certificate_costs_and_claims(certificate: Any, calls: int, evidence: set[str]) -> None:
    required = tuple(sorted(random.Random(1).sample(range(224), 16)))
    result = package.minimize(range(224), needs(*required), certificate=certificate)
    assert (result.kept, result.calls) == (required, calls)
    assert set(result.certificate.values()) >= evidence
    assert result.monotone
    assert result.minimal == (certificate == "explicit")


def test_a_prior_that_tears_a_block_apart_costs_little() -> None:
    """Give weights that scatter 16 neighbours. Without the questions about halves that costs over 60 calls more."""
    rng = random.Random(2)
    block = range(100, 116)
    weights = [(1.0 if i in block else 0.25) * rng.lognormvariate(0, 1) for i in range(224)]
    plain = package.minimize(range(224), needs(*block))
    informed = package.minimize(range(224), needs(*block), weights=weights)
    assert plain.kept == informed.kept == tuple(block)
    assert informed.calls <= 1.1 * plain.calls


def test_a_heavy_unit_left_out_early_is_taken_back() -> None:
    """Let unit 3 outweigh many others. A search from the front alone leaves it out, and keeps them instead."""
    weights = [1.0] * 400
    weights[3] = 150.0
    need = 0.65 * sum(weights)
    result = package.minimize(range(400), lambda subset: sum(weights[i] for i in subset) >= need)
    assert 3 in result.kept
    assert len(result.kept) == 208  # the least possible: unit 3, and units of weight 1 for the 206.5 that are missing


def test_a_second_answer_to_a_question_is_ignored() -> None:
    core = package.Reducer(range(8))
    ask = core.ask()
    assert ask is not None
    core.tell(ask, package.Answer.TRUE)
    core.tell(ask, False)
    assert core.result().kept == tuple(range(8))
    core.stop("interrupted")
    assert core.ask() is None


def test_options_and_their_keyword_types_agree() -> None:
    """Compare names and types of `Options` with those that callers of `minimize` are checked against."""
    assert get_type_hints(OptionArguments) == get_type_hints(Options)


@pytest.mark.parametrize("reduce", [package.minimize, package.Reducer])
def test_an_unknown_option_is_a_type_error(reduce: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'splits'"):
        reduce(range(3), *([needs(1)] if reduce is package.minimize else []), splits=2)
