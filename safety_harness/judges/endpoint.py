"""Judge answers by an endpoint."""

from __future__ import annotations

from collections.abc import Sequence

from safety_harness.judging.judge import Case, Judgement
from safety_harness.registry.judges import EndpointJudge


class Endpoint:
    """A judge of this kind."""

    def __init__(self, name: str, row: EndpointJudge) -> None:
        self.name = name
        self.row = row

    @property
    def fingerprint(self) -> str:
        """Whatever changes a verdict."""
        raise NotImplementedError

    def judge_many(self, cases: Sequence[Case]) -> list[Judgement]:
        """Return the judgement of each case, in order."""
        raise NotImplementedError
