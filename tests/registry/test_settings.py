"""Check thresholds given as options: converted, or refused by the option's own name."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from safety_harness.ddmin import STRATEGIES
from safety_harness.errors import ConfigError
from safety_harness.registry.settings import GateSettings, SearchSettings, parse_overrides


def test_only_what_was_given_overrides_and_as_a_number() -> None:
    assert parse_overrides(GateSettings, "gate", {"dsr": "0.9", "over_refusal": "0"}) == {
        "dsr": 0.9,
        "over_refusal": 0.0,
    }


def test_nothing_given_overrides_nothing() -> None:
    assert parse_overrides(SearchSettings, "search", {}) == {}


def test_counts_and_names_are_converted_too() -> None:
    given = {"max_probes": "20", "strategy": "ddmin", "prior": "norm"}
    assert parse_overrides(SearchSettings, "search", given) == {"max_probes": 20, "strategy": "ddmin", "prior": "norm"}


@pytest.mark.parametrize(
    ("settings", "prefix", "name", "value"),
    [
        (GateSettings, "gate", "dsr", "1.01"),
        (GateSettings, "gate", "dsr", "-0.1"),
        (GateSettings, "gate", "dsr", "nan"),
        (GateSettings, "gate", "dsr", "80%"),
        (GateSettings, "gate", "dsr", ""),
        (GateSettings, "gate", "over_refusal", "2"),
        (GateSettings, "gate", "task", "-1"),
        (GateSettings, "gate", "unscored", "1.5"),
        (GateSettings, "gate", "perplexity", "0.99"),
        (GateSettings, "gate", "perplexity", "nan"),
        (GateSettings, "gate", "divergence", "0"),
        (GateSettings, "gate", "confidence", "1"),
        (GateSettings, "gate", "confidence", "0.5"),
        (SearchSettings, "search", "target_share", "1.5"),
        (SearchSettings, "search", "target_dsr", "7"),
        (SearchSettings, "search", "max_probes", "0"),
        (SearchSettings, "search", "max_probes", "3.5"),
        (SearchSettings, "search", "strategy", "fast"),
        (SearchSettings, "search", "prior", "magic"),
    ],
)
def test_a_wrong_value_is_refused_by_its_options_name(
    settings: type[BaseModel], prefix: str, name: str, value: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides(settings, prefix, {name: value})
    message = str(caught.value)
    assert message.startswith(f"--{prefix}-{name.replace('_', '-')}: Input should be ")
    assert message.endswith(f" (given: {value!r}).")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_of_delta_debugging_can_be_chosen(strategy: str) -> None:
    assert parse_overrides(SearchSettings, "search", {"strategy": strategy}) == {"strategy": strategy}


def test_settings_cannot_change_after_a_run_has_begun() -> None:
    with pytest.raises(ValueError, match="frozen"):
        GateSettings().dsr = 0.1  # type: ignore[misc]
