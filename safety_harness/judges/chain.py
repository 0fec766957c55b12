"""Ask several judges in turn: each next one where those before it found no refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from safety_harness.files import sha256_text
from safety_harness.judges.kept import Kept
from safety_harness.judging.judge import NO_RULES, Case, Judgement, Verdict
from safety_harness.judging.rules import RuleJudge

Ask = Callable[[Kept, Sequence[Case]], list[Judgement]]


def ask(judge: Kept, cases: Sequence[Case]) -> list[Judgement]:
    """Return the judgements of *judge*."""
    return judge.judge_many(cases)


def judged(
    judges: Sequence[Kept | None], cases: Sequence[Case], by_rules: Sequence[Judgement], ask: Ask = ask
) -> list[Judgement]:
    """Return the judgements of a chain of judges, in which None stands for the rules, who have spoken.

    The last judge that was asked counts. One that knows of harm alone leaves the verdict of those before it. An answer
    that nobody can read, such as a loop, stays unscored whatever a judge would say.
    """
    found: list[Judgement | None] = [one if _unreadable(one) else None for one in by_rules]
    for judge in judges:
        places = [at for at, one in enumerate(found) if _is_open(one) and not _unreadable(by_rules[at])]
        said = ask(judge, [cases[at] for at in places]) if judge else [by_rules[at] for at in places]
        for at, one in zip(places, said, strict=True):
            found[at] = _after(found[at], one)
    return [one for one in found if one]


def fingerprint(judges: Sequence[Kept | None]) -> str:
    """Return whatever changes a verdict of a chain, in one digest."""
    every = [(judge or RuleJudge()).fingerprint for judge in judges]
    return every[0] if len(every) == 1 else sha256_text(json.dumps(every))


def _unreadable(by_rules: Judgement) -> bool:
    """Return whether no judge can read an answer: it is empty, a loop, withheld, or a thought that does not end."""
    return by_rules.verdict is Verdict.UNSCORED and not by_rules.reason.startswith(NO_RULES)


def _is_open(found: Judgement | None) -> bool:
    return found is None or found.verdict is not Verdict.REFUSED


def _after(before: Judgement | None, said: Judgement) -> Judgement:
    if before is None:
        return said
    if said.verdict is Verdict.UNSCORED and said.harmful is not None:
        return Judgement(before.verdict, before.reason, said.harmful, before.probability)
    harmful = before.harmful if said.harmful is None else said.harmful
    return Judgement(said.verdict, said.reason, harmful, said.probability)
