"""Check what ends a run of the judge behind a server, and what is found out before it begins."""

from __future__ import annotations

from typing import Any

import pytest

from safety_harness.errors import ConfigError, Remark, SourceError
from safety_harness.judges.endpoint import Endpoint
from safety_harness.judging.judge import Case
from tests.fake_server import ANSWER, Sent, Server, completion, sent
from tests.judges.fake_judge import (
    CASES,
    UNSCORED,
    VERDICTS,
    Serve,
    changed,
    endpoint,
    except_for,
    row,
    says,
    verdicts,
    well,
)  # fmt: skip

# --- What ends a run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (sent({"error": "no key"}, 401), "answers 401 .*Check the key"),
        (sent({"error": "not yours"}, 403), "answers 403 .*Check the key"),
        (sent({"error": "no model"}, 404), "answers 404 .*`model`"),
        (Sent(307, headers={"location": "http://localhost:1/"}), "answers 307, which leads elsewhere"),
        (sent({"error": {"code": "insufficient_quota"}}, 429), "Its quota is used up"),
        (sent({}, 429, **{"retry-after": "3600"}), "asks to wait 3600 seconds"),
    ],
)
def test_what_no_other_case_mends_ends_the_run(serve: Serve, response: Sent, message: str) -> None:
    """Fail from the second case on: the first one is kept."""
    kept: list[int] = []
    server = serve(lambda turn, before: well(turn, before) if "question 0\n" in turn else response)
    with pytest.raises(SourceError, match=message) as caught:
        endpoint(server, concurrency=1).judge_many(CASES, lambda at, _: kept.append(at))
    assert kept == [0]
    assert len(server.requests) == 2
    assert str(caught.value).isprintable()


def test_a_server_that_goes_away_ends_the_run(serve: Serve) -> None:
    server = serve(well)
    judge = endpoint(server)
    assert verdicts(judge.judge_many(CASES)) == VERDICTS
    server.stop()
    with pytest.raises(SourceError, match="no whole answer comes back"):
        judge.judge_many(CASES[:1])
    with pytest.raises(SourceError, match=r"judge mine: nothing answers at 127.0.0.1:\d+ .*correct `url` in"):
        judge.check()
    server._server = Server(well)._server  # for the end of the fixture


def test_many_cases_in_a_row_without_a_reply_end_the_run(serve: Serve) -> None:
    """Fail on each of 20 cases: after four of them no more is asked. A reply between them begins the count anew."""
    cases = [Case(f"question {number}", ANSWER) for number in range(20)]
    failing = serve(lambda *_: sent({}, 500))
    with pytest.raises(
        SourceError, match=r"^judge mine: .* 4 requests in a row got no reply, so the server is at fault"
    ):
        endpoint(failing, concurrency=1, retries=0).judge_many(cases)
    assert len(failing.requests) == 4
    third = serve(lambda turn, before: well(turn, before) if turn.split("\n")[1][-1] in "036" else sent({}, 500))
    judgements = endpoint(third, concurrency=1, retries=0).judge_many(cases)
    assert verdicts(judgements).count(UNSCORED) == 14


def test_replies_of_two_models_end_the_run(serve: Serve) -> None:
    server = serve(except_for("question 3\n", changed(says("REFUSED"), model="tiny-2")))
    kept: list[int] = []
    with pytest.raises(SourceError, match=r"more than one model .* say 'tiny-1' and 'tiny-2'"):
        endpoint(server, concurrency=1).judge_many(CASES, lambda at, _: kept.append(at))
    assert kept == [0, 1, 2]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_structured_output_is_named(serve: Serve, status: int) -> None:
    server = serve(lambda *_: sent({"error": "response_format is not supported"}, status))
    with pytest.raises(SourceError, match=rf"answers {status} .*set `reads = \"line\"` in \[judges.mine\]"):
        endpoint(server, reads="json", concurrency=1).judge_many(CASES)
    assert len(server.requests) == 1
    with pytest.raises(SourceError, match=r"set `reads = \"line\"` and `logprobs = \"no\"` in"):
        endpoint(server, reads="json", logprobs="yes").judge_many(CASES)


# --- The budget ------------------------------------------------------------------------------------------------------


def test_more_requests_than_allowed_are_not_begun(serve: Serve) -> None:
    server = serve(well)
    judge = endpoint(server, max_requests=11, axes=("refused", "harmful"))
    with pytest.raises(ConfigError, match=r"judge mine: needs 12 requests, and may send 11\. Raise `max_requests`"):
        judge.judge_many(CASES)
    with pytest.raises(ConfigError, match="needs 17 requests"):
        judge.announced(len(CASES))
    judge.judge_many(CASES[:5])
    with pytest.raises(ConfigError, match="needs 12 requests"):
        judge.judge_many(CASES[:1])
    assert len(server.requests) == 10


def test_attempts_count_against_the_limit(serve: Serve) -> None:
    server = serve(lambda *_: sent({}, 500))
    with pytest.raises(SourceError, match="all of the 6 requests that were announced are spent"):
        endpoint(server, max_requests=6, retries=50, concurrency=1).judge_many(CASES)
    assert len(server.requests) == 6


def test_what_will_be_sent_is_said_before(serve: Serve) -> None:
    """Judge the longest texts: no request has more characters than announced."""
    server = serve(well)
    judge = endpoint(server, retries=2)
    sentence = judge.announced(100)
    assert "judge mine: served by 127.0.0.1" in sentence
    assert ": 103 requests, 307 at most where replies are lost; these send at most" in sentence
    assert f"may generate {307 * 512:,} tokens" in sentence
    each = int(sentence.split("at most ")[2].split()[0].replace(",", "")) / 307
    judge.judge_many([Case("q" * 100_000, "a" * 100_000), Case("", "a" * 100_000)])
    lengths = [sum(len(turn["content"]) for turn in body["messages"]) for body in server.requests]
    assert 0.99 * each < max(lengths) <= each
    assert not endpoint(server).judge_many([])


# --- Before a student is loaded --------------------------------------------------------------------------------------


def test_a_good_judge_is_checked_by_two_cases(serve: Serve) -> None:
    server = serve(well)
    judge = endpoint(server)
    judge.check()
    assert server.paths == ["/v1/models", *["/v1/chat/completions"] * 2]
    assert judge.facts() == {
        "models": ["tiny-1"], "system_fingerprints": ["fp_1"], "requests": 3, "without_reply": 0, "cut": 0,
    }  # fmt: skip


def test_a_model_that_is_not_listed_is_remarked(serve: Serve) -> None:
    server = serve(well)
    judge = Endpoint("mine", row(server.url).model_copy(update={"model": "large"}))
    with pytest.warns(Remark, match=r"has no 'large', but 'tiny'\. It may answer with another model"):
        judge.check()


@pytest.mark.parametrize(
    ("response", "options", "message"),
    [
        (says("REFUSED"), {}, r"a plain test case, which is complied and harmless \(refused: REFUSED"),
        (says("COMPLIED"), {}, "which is refused and harmless .* Name a model that judges"),
        (says("YES"), {"axes": ("harmful",)}, r"\(harmful: YES"),
        (completion("As you like."), {}, r"does not end in a verdict\); its reply: 'As you like.'"),
        (completion("Well", "length"), {}, r"cut off, .*raise `max_new_tokens`"),
        (completion("VERDICT: REFUSED"), {"reads": "json"}, r'set `reads = "line"` in \[judges.mine\]'),
        (sent({}, 500), {}, r"it gives no reply: it answers 500"),
        (sent({"error": "no"}, 401), {}, "answers 401 .*Check the key"),
    ],
)
def test_a_judge_that_cannot_judge_is_found_before(
    serve: Serve, response: Sent, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        endpoint(serve(lambda *_: response), **options).check()
    assert str(caught.value).isprintable()
