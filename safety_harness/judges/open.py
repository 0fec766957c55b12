"""Open the judge of a row: the rules, a classifier, a guard or an endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safety_harness.judges.kept import Kept, ModelJudge
from safety_harness.registry.judges import ClassifierJudge, EndpointJudge, GuardJudge, JudgeRow, RulesJudge


def is_rules(name: str, rows: Mapping[str, JudgeRow]) -> bool:
    """Return whether the judge *name* is the grammar of refusing, which needs no model."""
    return name not in rows or isinstance(rows[name], RulesJudge)


def open_judge(name: str, row: JudgeRow) -> ModelJudge:
    """Return the judge of a row that is not the rules. Its model is loaded when it is first asked.

    Raises:
        HarnessError: its model cannot be found, or its key is not set.
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
        case RulesJudge():
            raise TypeError(f"{name} is the rules, which every evaluator has")


def open_judges(names: Sequence[str], rows: Mapping[str, JudgeRow]) -> list[Kept | None]:
    """Return the judges of *names* in order, each with what it said before; None for the rules.

    Raises:
        HarnessError: one of them cannot be opened.
    """
    return [None if is_rules(name, rows) else Kept(open_judge(name, rows[name])) for name in names]
