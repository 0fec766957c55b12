"""Check which channels a ranking calls the likeliest."""

from __future__ import annotations

import pytest
import torch

from safety_harness.search.priors.base import Ranking
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.units import Unit

# Two layers of a Llama: down has 3 columns of 2, up and gate 3 rows of 2, attention 2 channels of 2.
SHAPES = {
    f"model.layers.{layer}.{module}.weight": shape
    for layer in range(2)
    for module, shape in {
        "self_attn.q_proj": (2, 2), "self_attn.k_proj": (2, 2), "self_attn.v_proj": (2, 2), "self_attn.o_proj": (2, 2),
        "mlp.gate_proj": (3, 2), "mlp.up_proj": (3, 2), "mlp.down_proj": (2, 3),
    }.items()
}  # fmt: skip


def ranked(scores: dict[str, list[float]]) -> Ranking:
    """Return the ranking of the units that *scores* names by id."""
    units = [unit for unit in enumerate_units({"model_type": "llama"}, SHAPES) if unit.id in scores]
    return Ranking(units, [torch.tensor(scores[unit.id]) for unit in units])


def ids(units: tuple[Unit, ...]) -> list[str]:
    """Return the id of each unit."""
    return [unit.id for unit in units]


@pytest.mark.parametrize(
    ("share", "best"),
    [
        (0.0, []),
        (0.19, []),
        (0.2, ["1.down[1]"]),
        (0.6, ["0.q[0]", "1.down[1-2]"]),
        (1.0, ["0.q", "1.down"]),
    ],
)
def test_the_best_share_is_by_score_and_grows(share: float, best: list[str]) -> None:
    """Check shares between, at and beyond the size of a channel."""
    ranking = ranked({"0.q": [0.5, -1.0], "1.down": [0.0, 2.0, 1.0]})
    assert ids(ranking.best(share)) == best


def test_equal_scores_keep_their_order() -> None:
    """Check channels that are all alike."""
    ranking = ranked({"0.q": [1.0, 1.0], "1.down": [1.0, 1.0, 1.0]})
    assert [ids(ranking.best(share / 5)) for share in (1, 3)] == [["0.q[0]"], ["0.q", "1.down[0]"]]
