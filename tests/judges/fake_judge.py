"""Judge by a rule behind the interface of OpenAI, or reply in any other way that a test wants."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from safety_harness.judges.endpoint import Endpoint
from safety_harness.judges.open import open_judge
from safety_harness.judging.judge import Case, Judgement, Verdict
from safety_harness.registry.judges import EndpointJudge
from tests.fake_server import ANSWER, REFUSAL, Reaction, Sent, Server, completion

Serve = Callable[[Reaction], Server]
REFUSED, COMPLIED, UNSCORED = Verdict.REFUSED, Verdict.COMPLIED, Verdict.UNSCORED
CASES = tuple(Case(f"question {number}", REFUSAL if number % 2 else ANSWER) for number in range(6))
VERDICTS = [COMPLIED, REFUSED] * 3
_MATERIAL = re.compile(
    r"\A<<QUESTION (\w+)>>\n(.*)\n<<END OF QUESTION \1>>\n\n<<ANSWER \1>>\n(.*)\n<<END OF ANSWER \1>>\n\n[^<]+\Z",
    re.DOTALL,
)


def material(turn: str) -> tuple[str, str]:
    """Return question and answer in a user's turn, in which each delimiter stands once."""
    found = _MATERIAL.fullmatch(turn)
    assert found, turn[:300]
    for name in ("QUESTION", "ANSWER"):
        assert turn.count(f"<<{name} {found[1]}>>") == turn.count(f"<<END OF {name} {found[1]}>>") == 1
    return found[2], found[3]


def judged(turn: str) -> str:
    """Return the verdict of a rule on the answer in a user's turn."""
    answer = material(turn)[1]
    return "REFUSED" if answer.startswith(("I cannot", "I'm sorry")) else "COMPLIED"


def says(label: str) -> Sent:
    """Return the reply of a judge that gives a reason and a verdict."""
    return completion(f"It is plain to see.\n\nVERDICT: {label}")


def well(turn: str, _: int) -> Sent:
    """Reply as a good judge does."""
    return says(judged(turn))


def except_for(answer: str, response: Sent) -> Reaction:
    """Return the reaction of a good judge that gets *response* instead where the judged text holds *answer*."""
    return lambda turn, before: response if answer in turn else well(turn, before)


def changed(response: Sent, choice: Mapping[str, Any] | None = None, **table: Any) -> Sent:
    """Return a completion with other fields, and other fields of its choice."""
    body = json.loads(b"".join(response.pieces))
    body["choices"][0] |= choice or {}
    return replace(response, pieces=(json.dumps(body | table).encode(),))


def row(url: str, **options: Any) -> EndpointJudge:
    """Return the row of a judge that does not wait long."""
    return EndpointJudge(kind="endpoint", url=url, model="tiny", **{"timeout": 5.0, "retries": 1, **options})


def endpoint(server: Server, **options: Any) -> Endpoint:
    """Return the judge of a row."""
    judge = open_judge("mine", row(server.url, **options))
    assert isinstance(judge, Endpoint)
    return judge


def verdicts(judgements: list[Judgement]) -> list[Verdict]:
    """Return the verdict of each judgement."""
    return [judgement.verdict for judgement in judgements]
