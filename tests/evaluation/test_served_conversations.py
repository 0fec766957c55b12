"""Conversations and drawn answers of a served student: what is sent, announced, kept, and refused before it is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safety_harness.conversation import Asked, Asking, Conversation, Decoding, Turn
from safety_harness.errors import ConfigError, SourceError
from safety_harness.evaluation import asking
from safety_harness.evaluation.asking import SAMPLE, all_asked, askings, budget, sample_of, sets_asked
from safety_harness.evaluation.served import announced, open_served
from safety_harness.files import sha256_text
from safety_harness.registry.load import Student
from safety_harness.registry.prompts import PromptSet, read_prompts
from safety_harness.registry.server import Served
from safety_harness.registry.splits import StudentSplits
from tests.evaluation.serving import Serve, remarks, served_student, well
from tests.fake_server import Sent, completion, sent

QUESTION = "harmful question 3?"
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
BEGUN = {"role": "assistant", "content": "Sure, here is"}
ROWS: list[dict[str, Any]] = [
    {"messages": TALK},
    {"messages": [*TALK, BEGUN]},
    {"text": "harmful and begun?", "prefill": "Step 1:"},
    {"text": "harmful and plain?"},
]
CONTINUES = {"prefill": "continue_final_message"}
WARM = Decoding(32, 0.7)


def drawn(body: dict[str, Any]) -> Sent:
    """Return an answer that depends on the whole request, as that of a server that samples by its seed."""
    return completion(f"Sure, {sha256_text(json.dumps(body, sort_keys=True))[:8]}.")


def test_a_conversation_is_asked_as_it_is(serve: Serve, tmp_path: Path) -> None:
    """Ask one question as it is, in a conversation, and with a begun answer: each has its own answer."""
    server = serve(lambda question, _: completion(f" to {question}"))
    one = served_student(tmp_path, server, further=ROWS, **CONTINUES)
    evaluator = open_served(one)
    (_, more), *_ = [(how, prompts) for prompts, how in sets_asked(one, evaluator.questions) if prompts.name[0] == "m"]
    answers = [each.answer for each in evaluator.answers((), more)]
    assert answers == [
        f"to {QUESTION}", "Sure, here is to Sure, here is", "Step 1: to Step 1:", "to harmful and plain?",
    ]  # fmt: skip
    asked = [request for request in server.requests if len(request["messages"]) > 1]
    assert len(asked) == 3
    body = {"model": "tiny", "temperature": 0, "max_tokens": 16, "seed": 0, "stream": False}
    continued = {"add_generation_prompt": False, "continue_final_message": True}
    assert {json.dumps(request, sort_keys=True) for request in asked} == {
        json.dumps(request, sort_keys=True)
        for request in (
            body | {"messages": TALK},
            body | {"messages": [*TALK, BEGUN]} | continued,
            body | continued | {"messages": [{"role": "user", "content": "harmful and begun?"},
                                             {"role": "assistant", "content": "Step 1:"}]},
        )
    }  # fmt: skip
    assert evaluator.client.sent == len(server.paths) == 1 + 44 + 2 * SAMPLE


def test_what_a_conversation_takes_is_announced(serve: Serve, tmp_path: Path) -> None:
    """Count every turn and every beginning, twice: one more attempt is allowed."""
    server = serve(well)
    one = served_student(tmp_path, server, further=ROWS, **CONTINUES)
    assert announced(one).startswith(f"a/one: served by {server.url[7:]}/tiny: 53 requests, 105 at most where ")
    assert announced(one).endswith("may generate 1,664 tokens")
    evaluator = open_served(one)
    said = sum(len(turn["content"]) for request in server.requests for turn in request["messages"])
    assert evaluator.budget.characters == 2 * said
    assert evaluator.budget.at_most == 1 + 2 * len(server.requests)
    assert evaluator.budget.tokens == 2 * sum(request["max_tokens"] for request in server.requests)


def test_drawn_answers_are_counted_by_their_own_tokens() -> None:
    """Add to two plain questions a longer greedy answer and three draws: the sample stays plain."""
    server = Served(url="http://localhost/v1", model="m", retries=0, extra={"max_completion_tokens": 20})
    student: Any = Stub()
    plain = [Asking("a" * 10), Asking("b" * 10)]
    longer = [Asking("a" * 10, Decoding(40)), *(Asking("c" * 5, Decoding(30, 0.7, draw)) for draw in range(3))]
    asked = [*plain, *longer]
    assert sample_of(asked, SAMPLE) == plain
    assert sample_of(longer, SAMPLE) == longer[:1]
    assert sample_of(longer[1:], SAMPLE) == []
    spent = budget(student, server, asked)
    assert (spent.questions, spent.requests) == (6, 1 + 6 + 2 * 2)
    assert spent.tokens == 6 * 20 + 40 + 3 * 30
    assert spent.characters == 6 * 10 + 10 + 3 * 5


class Stub:
    class family:  # noqa: N801  (a student has one)
        max_new_tokens = 16


def test_a_begun_answer_is_refused_before_the_first_request(serve: Serve, tmp_path: Path) -> None:
    server = serve(well)
    one = served_student(tmp_path, server, further=ROWS)
    for act in (announced, open_served):
        with pytest.raises(ConfigError, match=r'begins the answer, .* set `prefill = "continue_final_message"`'):
            act(one)
    plain = open_served(served_student(tmp_path, server, further=ROWS[3:], concurrency=1))
    before = len(server.paths)
    with pytest.raises(ConfigError, match="begins the answer"):
        plain.answers((), prompts_of(tmp_path, [{"text": "another?"}, ROWS[1]]))
    assert len(server.paths) == before == 1 + 41 + 2 * SAMPLE


def prompts_of(folder: Path, rows: list[dict[str, Any]]) -> PromptSet:
    """Return the prompt set of *rows*."""
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_prompts(folder / "own.jsonl")


def test_a_server_without_a_temperature_draws_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve(well)
    evaluator = open_served(served_student(tmp_path, server, omit=["temperature"]))
    before = len(server.paths)
    with pytest.raises(ConfigError, match=r"to be drawn at temperature 0.7, and this server is sent none \(`omit`\)"):
        evaluator.answers((), evaluator.questions.harmful.report, decoding=WARM)
    assert len(server.paths) == before
    evaluator.answers((), evaluator.questions.harmful.report, decoding=Decoding(16))


def test_each_draw_of_each_question_has_a_seed_of_its_own(serve: Serve, tmp_path: Path) -> None:
    """Draw three times: new requests for each, none for what was drawn, and none for the family's own way."""
    server = serve(well)
    server.sampler = drawn
    evaluator = open_served(served_student(tmp_path, server, seed=5))
    prompts = evaluator.questions.harmful.report
    greedy = evaluator.answers((), prompts)
    before = len(server.requests)
    draws = [evaluator.answers((), prompts, decoding=Decoding(32, 0.7, draw)) for draw in range(3)]
    asked = server.requests[before:]
    assert len(asked) == 3 * len(prompts)
    assert {(request["temperature"], request["max_tokens"]) for request in asked} == {(0.7, 32)}
    seeds = {request["seed"] for request in asked}
    assert len(seeds) == len(asked)
    assert all(0 <= seed < 2**31 for seed in seeds)
    (first,) = [each["seed"] for each in asked[: len(prompts)] if each["messages"][0]["content"] == QUESTION]
    assert first == (WARM.seed(QUESTION) + 5) % 2**31
    assert len({each.answer for draw in (greedy, *draws) for each in draw}) == 4 * len(prompts)
    assert [evaluator.answers((), prompts, decoding=Decoding(32, 0.7, draw)) for draw in range(3)] == draws
    assert evaluator.answers((), prompts, decoding=Decoding(16, draw=2)) == greedy
    assert len(server.requests) == before + len(asked)


def test_a_longer_answer_is_another_one(serve: Serve, tmp_path: Path) -> None:
    """Ask for more tokens than the family has, of a server that counts thoughts among them."""
    server = serve(well)
    server.sampler = drawn
    extra = {"max_completion_tokens": 24}
    evaluator = open_served(served_student(tmp_path, server, omit=["max_tokens"], extra=extra))
    prompts = evaluator.questions.harmful.report
    for tokens, sent_as in ((None, 24), (20, 24), (32, 32)):
        evaluator.answers((), prompts, decoding=tokens and Decoding(tokens))
        assert server.requests[-1 if tokens else 0]["max_completion_tokens"] == sent_as
    assert [request["max_completion_tokens"] for request in server.requests].count(32) == len(prompts)


def draw_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gate ask the harmful questions twice more at random, and once for a longer answer."""
    plain = sets_asked

    def more(student: Student, questions: StudentSplits) -> list[tuple[PromptSet, Decoding | None]]:
        harmful = questions.harmful.report
        draws: list[Decoding | None] = [Decoding(32, 0.7), Decoding(32, 0.7, 1), Decoding(48)]
        return [*((harmful, how) for how in draws), *plain(student, questions)]

    monkeypatch.setattr(asking, "sets_asked", more)


def test_all_that_is_drawn_is_announced_and_kept(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break off in the midst of draws: the next run asks what is missing, and has the same answers."""
    draw_too(monkeypatch)
    server = serve(well)
    broken = [True]

    def fails(body: dict[str, Any]) -> Sent:
        last = body["messages"][-1]["content"] == "harmless question 9?"
        return sent({}, 500) if broken[0] and last else drawn(body)

    server.sampler = fails
    one = served_student(tmp_path, server, concurrency=1, further=ROWS, **CONTINUES)
    with pytest.raises(SourceError, match="harmless question 9"):
        open_served(one)
    asked = len({json.dumps(request, sort_keys=True) for request in server.requests}) - 1
    assert asked > 80
    broken[0] = False
    server.requests.clear()
    evaluator = open_served(one)
    every = all_asked(one, evaluator.questions)
    assert len(every) == evaluator.budget.questions == 40 + 3 * 20 + 4
    assert len(server.requests) == len(every) - asked + 3 * SAMPLE
    harmful = evaluator.questions.harmful.report
    answers = {how: evaluator.answers((), harmful, decoding=how) for how in (None, WARM, Decoding(48))}
    assert len({each.answer for some in answers.values() for each in some}) == 60
    assert len(server.requests) == len(every) - asked + 3 * SAMPLE
    for how, some in answers.items():
        for put, each in zip(askings(one, harmful, how), some, strict=True):
            body = Served(url=server.url, model="tiny", **CONTINUES).body(put.asked, 16, put.decoding)  # type: ignore[arg-type]
            assert each.answer == json.loads(drawn(body).pieces[0])["choices"][0]["message"]["content"]


def test_a_journal_of_plain_questions_stays_valid(serve: Serve, tmp_path: Path) -> None:
    """Find each plain question under the digest of its text, as before there were conversations."""
    server = serve(well)
    evaluator = open_served(served_student(tmp_path, server, further=ROWS, **CONTINUES))
    keys = [json.loads(line)["question"] for line in evaluator._journal.file.read_text().splitlines()]
    plain = [text for prompts in evaluator.questions.reported for text in prompts.texts]
    assert {sha256_text(text) for text in [*plain, "harmful and plain?"]} < set(keys)
    assert len(set(keys)) == 44


def test_the_sample_is_of_plain_questions(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer each draw otherwise whenever it is asked: nothing is remarked, for no draw is asked twice."""
    draw_too(monkeypatch)
    server = serve(well)
    count = iter(range(10_000))
    server.sampler = lambda body: (
        completion(f"Sure, {next(count)}.") if body["temperature"] else well(body["messages"][0]["content"])
    )
    assert remarks(served_student(tmp_path, server)) == []
    (said,) = remarks(served_student(tmp_path, server, omit=["seed"]))
    assert said == "a/one: is asked without a seed, so another run will draw other answers."


KEYS: list[Asked] = [
    "x", Conversation((Turn("user", "x"),), "y"), Conversation((Turn("system", "y"), Turn("user", "x"))),
]  # fmt: skip


def test_what_is_asked_otherwise_has_another_key() -> None:
    ways = [None, Decoding(9), Decoding(8), Decoding(9, 0.7), Decoding(9, 0.70001), Decoding(9, 0.7, 1)]
    assert len({Asking(asked, how).key for asked in KEYS for how in ways}) == len(KEYS) * len(ways)
    assert Asking("x").key == Asking(Conversation((Turn("user", "x"),))).key == sha256_text("x")
    named = Conversation((Turn("user", "x"),), "y", attack="mine")
    assert Asking(named, WARM).key == Asking(KEYS[1], WARM).key
