"""Open the judge that a family names: the rules, a classifier, a guard, an endpoint, or a chain of these."""

from __future__ import annotations

from safety_harness.judging.judge import Judge
from safety_harness.registry.judges import ClassifierJudge, EndpointJudge, GuardJudge, JudgeRow


def open_row(name: str, row: JudgeRow) -> Judge:
    """Return the judge of one row, which reads its model when it is first asked.

    Raises:
        HarnessError: its model or its server cannot be used.
    """
    match row:
        case ClassifierJudge():
            from safety_harness.judges.classifier import Classifier

            return Classifier(name, row)
        case GuardJudge():
            from safety_harness.judges.guard import Guard

            return Guard(name, row)
        case EndpointJudge():
            from safety_harness.judges.endpoint import Endpoint

            return Endpoint(name, row)
        case _:
            from safety_harness.judging.rules import RuleJudge

            return RuleJudge()
