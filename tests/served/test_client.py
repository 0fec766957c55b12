"""Check how a server is asked: what is sent, how often and how fast, and how each failure ends."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from safety_harness.conversation import Conversation, Turn
from safety_harness.errors import ConfigError, HarnessError, SourceError
from safety_harness.registry.server import Served
from safety_harness.served import client
from safety_harness.served.client import Client
from safety_harness.served.reply import MOST_BYTES, NoReply, Reply, listed_models
from tests.fake_server import ANSWER, REFUSAL, Reaction, Sent, Server, completion, sent

Serve = Callable[[Reaction], Server]
QUESTIONS = tuple(f"question {number}" for number in range(6))


def ask(server: Server, questions: tuple[str, ...] = QUESTIONS, limit: int = 1000, **options: Any) -> dict[str, Reply]:
    """Ask *server* and return its replies, by question."""
    replies: dict[str, Reply] = {}
    spec = Served(url=server.url, model="tiny", **{"timeout": 5.0, "retries": 2, **options})
    Client(spec, 16, limit).ask(questions, replies.__setitem__)
    return replies


def always(response: Sent) -> Reaction:
    return lambda *_: response


def after_failing(response: Sent, times: int = 1) -> Reaction:
    """Return the reaction that sends *response* to each question as many *times* before it answers."""
    return lambda _, before: response if before < times else completion()


# --- What is sent ----------------------------------------------------------------------------------------------------


def test_each_question_is_asked_once_and_greedily(serve: Serve) -> None:
    server = serve(lambda question, _: completion(f"to {question}"))
    replies = ask(server, extra={"top_k": 1})
    assert {question: reply.text for question, reply in replies.items()} == {one: f"to {one}" for one in QUESTIONS}
    assert sorted(server.questions) == sorted(QUESTIONS)
    assert server.requests[0] == {
        "model": "tiny", "messages": [{"role": "user", "content": server.questions[0]}], "temperature": 0,
        "max_tokens": 16, "seed": 0, "stream": False, "top_k": 1,
    }  # fmt: skip
    assert set(server.paths) == {"/v1/chat/completions"}
    assert "authorization" not in server.headers[0]


TALK = (Turn("system", "Be brief."), Turn("user", "Why?"), Turn("assistant", "What?"), Turn("user", "This."))


def test_a_conversation_is_sent_as_its_messages(serve: Serve) -> None:
    server = serve(always(completion(" a loaf. ")))
    spec = Served(url=server.url, model="tiny")
    replies: dict[Conversation, Reply] = {}
    Client(spec, 16, 9).ask([Conversation(TALK)], replies.__setitem__)
    assert replies[Conversation(TALK)].text == "a loaf."
    assert server.requests[0] == spec.body("", 16) | {"messages": Conversation(TALK).messages}
    assert spec.body(Conversation.of("Why?"), 16) == spec.body("Why?", 16)


def test_a_begun_answer_is_continued_where_the_server_does_so(serve: Serve) -> None:
    """Send the beginning as the last message, and put it before what comes back."""
    server = serve(always(completion(" a loaf. ")))
    spec = Served(url=server.url, model="tiny", prefill="continue_final_message")
    begun = Conversation(TALK, "Sure, here is")
    replies: dict[Conversation, Reply] = {}
    Client(spec, 16, 9).ask([begun], replies.__setitem__)
    assert replies[begun].text == "Sure, here is a loaf."
    assert server.requests[0] == spec.body("", 16) | {
        "messages": [*begun.messages, {"role": "assistant", "content": "Sure, here is"}],
        "add_generation_prompt": False,
        "continue_final_message": True,
    }


def test_a_filtered_answer_is_not_its_beginning(serve: Serve) -> None:
    server = serve(always(completion("a loaf", finish="content_filter")))
    spec = Served(url=server.url, model="tiny", prefill="continue_final_message")
    replies: dict[Conversation, Reply] = {}
    begun = Conversation(TALK, "Sure, here is")
    Client(spec, 16, 9).ask([begun], replies.__setitem__)
    assert (replies[begun].text, replies[begun].withheld) == ("", True)


def test_a_begun_answer_goes_to_no_server_that_would_begin_another(serve: Serve) -> None:
    server = serve(always(completion()))
    begun = Conversation(TALK, "Sure, here is", attack="prefill-sure")
    with pytest.raises(
        ConfigError, match=r"/tiny: The attack 'prefill-sure' begins the answer, .*Leave the attack out"
    ):
        Client(Served(url=server.url, model="tiny"), 16, 9).ask([begun], lambda *_: None)
    assert not server.requests
    with pytest.raises(ValueError, match="'continue_final_message', which is not for it to say"):
        Served(url=server.url, model="tiny", extra={"continue_final_message": True})


def test_fields_that_a_server_does_not_take_are_left_out(serve: Serve) -> None:
    server = serve(always(completion()))
    ask(server, omit=("seed", "temperature", "max_tokens"), extra={"max_completion_tokens": 16})
    assert set(server.requests[0]) == {"model", "messages", "stream", "max_completion_tokens"}


def test_no_more_are_asked_at_once_than_allowed(serve: Serve) -> None:
    def slowly(*_: object) -> Sent:
        time.sleep(0.1)
        return completion()

    server = serve(slowly)
    ask(server, concurrency=3)
    assert server.most_at_once == 3


def test_requests_keep_to_their_rate(serve: Serve) -> None:
    """Ask four questions at 1,200 a minute: three pauses of 50 ms."""
    server = serve(always(completion()))
    start = time.monotonic()
    ask(server, QUESTIONS[:4], requests_per_minute=1200)
    assert time.monotonic() - start >= 0.15


def test_no_request_is_sent_beyond_those_announced(serve: Serve) -> None:
    server = serve(always(sent({}, 503)))
    with pytest.raises(SourceError, match="all of the 4 requests that were announced are spent"):
        ask(server, limit=4, retries=50, concurrency=1)
    assert len(server.requests) == 4


# --- The key ---------------------------------------------------------------------------------------------------------

KEY = "sk-own-0123456789abcdef"


def test_a_key_is_sent_and_never_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server repeat the key in an answer and in an error."""
    monkeypatch.setenv("MINE", KEY)
    server = serve(always(completion(f"your key is {KEY}", system=KEY)))
    replies = ask(server, key_env="MINE")
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert KEY not in repr(replies)
    assert KEY not in repr(Client(Served(url=server.url, model="tiny", key_env="MINE"), 16, 1))
    refusing = serve(always(sent({"error": {"message": f"wrong key {KEY}"}}, 401)))
    with pytest.raises(SourceError, match=r"answers 401 \(wrong key \*\*\*\). Check the key") as caught:
        ask(refusing, key_env="MINE")
    assert KEY not in str(caught.value)
    assert len(refusing.requests) <= 4


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"\$MINE .* is not set"),
        ("  ", "is not set"),
        ("a b", "is no key"),
        ("é", "is no key"),
        ("a\nb", "is no key"),
    ],
)
def test_a_key_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str | None, message: str) -> None:
    monkeypatch.delenv("MINE", raising=False)
    if value is not None:
        monkeypatch.setenv("MINE", value)
    with pytest.raises(ConfigError, match=message):
        Client(Served(url="http://localhost/v1", model="m", key_env="MINE"), 16, 1)


def test_a_redirect_is_not_followed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead to another server, which must neither be asked nor see the key."""
    monkeypatch.setenv("MINE", KEY)
    other = serve(always(completion()))
    server = serve(always(Sent(307, headers={"location": f"{other.url}/chat/completions?token=abc"})))
    with pytest.raises(SourceError, match=r"answers 307, which leads elsewhere \(http.*\?\*\*\*\)"):
        ask(server, key_env="MINE")
    assert not other.paths


# --- What is answered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "reply"),
    [
        (completion(f" {ANSWER}\n"), Reply(ANSWER, finish="stop")),
        (
            completion([{"type": "text", "text": "Sure, "}, {"type": "text", "text": "two."}]),
            Reply("Sure, two.", finish="stop"),
        ),
        (completion("Sure, take", "length"), Reply("Sure, take", finish="length")),
        (completion(""), Reply("", finish="stop")),
        (completion(None), Reply("", finish="stop")),
        (completion(None, refusal=REFUSAL), Reply(REFUSAL, finish="stop")),
        (completion(ANSWER, refusal=None), Reply(ANSWER, finish="stop")),
        (completion("Sure.", reasoning_content="hm"), Reply("Sure.", "hm", "stop")),
        (completion("Sure.", reasoning="hm"), Reply("Sure.", "hm", "stop")),
        (completion(None, "length", reasoning_content="I cannot"), Reply("", "I cannot", "length")),
        (completion("Sure, first", "content_filter"), Reply("", finish="content_filter", withheld=True)),
        (completion(None, "tool_calls", tool_calls=[{"id": "1"}]), Reply("", finish="tool_calls", withheld=True)),
        (completion("Sure.", "tool_calls", tool_calls=[{"id": "1"}]), Reply("Sure.", finish="tool_calls")),
        (
            sent({"error": {"code": "content_filter", "message": "no"}}, 400),
            Reply("", finish="content_filter", withheld=True),
        ),
        (
            sent({"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, 400),
            Reply("", finish="content_filter", withheld=True),
        ),
    ],
)  # fmt: skip
def test_what_counts_as_the_answer(serve: Serve, response: Sent, reply: Reply) -> None:
    (got,) = ask(serve(always(response)), QUESTIONS[:1]).values()
    named = {"model": "tiny-1", "fingerprint": "fp_1"} if response.status == 200 else {}
    assert got == Reply(**{**vars(reply), **named})


def test_a_thought_without_an_answer_is_one_that_does_not_end() -> None:
    assert Reply("", "I cannot").answer == "<think>I cannot"
    assert Reply("Sure.", "I cannot").answer == "Sure."


# --- What fails and is asked again -----------------------------------------------------------------------------------

HTML = b"<html><body>Bad gateway</body></html>"
LOST: Mapping[str, Sent] = {
    "429": sent({"error": {"message": "slow down"}}, 429, **{"retry-after": "0"}),
    "429 and a date": sent({}, 429, **{"retry-after": email.utils.formatdate(time.time() - 5, usegmt=True)}),
    "429 and nonsense": sent({}, 429, **{"retry-after": "soon"}),
    "500": sent({"error": "boom"}, 500),
    "502 and a page": Sent(502, (HTML,)),
    "503 and nothing": Sent(503),
    "a page": Sent(200, (HTML,), {"content-type": "text/html"}),
    "no JSON": Sent(200, (b'{"choices": [',)),
    "nothing": Sent(200),
    "a list": sent([]),
    "no choices": sent({"id": "1"}),
    "empty choices": sent({"choices": []}),
    "choices of another kind": sent({"choices": {"message": "yes"}}),
    "no message": sent({"choices": [{"text": ANSWER}]}),
    "an error within": sent({"choices": [{"message": {"content": "I cannot"}, "error": {"code": 502}}]}),
    "an error beside": sent({"choices": [{"message": {"content": "I cannot"}}], "error": "down"}),
    "an answer that broke off": completion("I cannot", "error"),
    "an answer that was ended": completion("I cannot", "abort"),
    "content of another kind": completion({"text": ANSWER}),
    "content of many kinds": completion([1, 2]),
    "no text": Sent(200, (b"\xff\xfe\x00",)),
    "nested too deep": Sent(200, (b"[" * 100_000,)),
    "a body cut short": Sent(200, (completion().pieces[0][:40],), length=400),
    "a compressed body": Sent(200, (b"\x1f\x8b\x08",), {"content-encoding": "gzip"}),
    "no HTTP": Sent(200, (completion().pieces[0],), {"content-length": "-7"}),
}  # fmt: skip


@pytest.mark.parametrize("response", LOST.values(), ids=LOST)
def test_a_lost_answer_is_asked_for_again(serve: Serve, response: Sent) -> None:
    """Fail twice on each question, then answer."""
    server = serve(after_failing(response, 2))
    assert {reply.text for reply in ask(server).values()} == {ANSWER}
    assert len(server.requests) == 3 * len(QUESTIONS)


@pytest.mark.parametrize("response", LOST.values(), ids=LOST)
def test_an_answer_that_stays_lost_ends_in_one_line(serve: Serve, response: Sent) -> None:
    start = time.monotonic()
    message = r"/v1/tiny: gives no answer to 'question \d' in 3 attempts; at last, "
    with pytest.raises(SourceError, match=message) as caught:
        ask(serve(always(response)))
    assert time.monotonic() - start < 5
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_an_answer_that_drips_is_lost_in_time(serve: Serve) -> None:
    """Send a byte every tenth of a second, for a minute: each read is quick, and the answer is not."""
    server = serve(always(Sent(200, (b" ",) * 600, seconds=0.1)))
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"there is no whole answer within 0.5 seconds \(`timeout`\)"):
        ask(server, QUESTIONS[:1], timeout=0.5, retries=1)
    assert time.monotonic() - start < 4


def test_a_body_without_end_is_not_read_to_its_end(serve: Serve) -> None:
    server = serve(always(Sent(200, (b" " * MOST_BYTES, b" " * MOST_BYTES), length=1 << 40)))
    with pytest.raises(SourceError, match="sends more than 4 MiB"):
        ask(server, QUESTIONS[:1])
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_named(serve: Serve) -> None:
    server = serve(always(completion()))
    server.stop()
    with pytest.raises(SourceError, match=r"127.0.0.1:\d+/v1/tiny: .* no whole answer comes back \(ConnectError"):
        ask(server, retries=1)
    server._server = Server(always(completion()))._server  # for the end of the fixture


@pytest.mark.parametrize(("asked", "least"), [("0.4", 0.4), ("0", 0.0)])
def test_a_server_may_ask_for_a_pause(serve: Serve, asked: str, least: float) -> None:
    server = serve(after_failing(sent({}, 429, **{"retry-after": asked})))
    start = time.monotonic()
    ask(server, QUESTIONS[:1])
    assert least <= time.monotonic() - start < least + 2


def test_a_long_pause_ends_the_run(serve: Serve) -> None:
    server = serve(always(sent({}, 429, **{"retry-after": "3600"})))
    with pytest.raises(SourceError, match=r"asks to wait 3600 seconds\. Answers so far are kept"):
        ask(server)
    assert len(server.requests) <= 4


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, {"error": {"message": "max_tokens: no"}}, r"answers 400 \(max_tokens: no\). Check what it takes"),
        (401, {"error": {"message": "no key"}}, r"answers 401 \(no key\). Check the key: `key_env` names"),
        (403, {"detail": "no"}, r"answers 403 \(no\). Check the key"),
        (404, {"error": {"message": "no such model"}}, r"answers 404 \(no such model\). Check `url`, which often ends"),
        (405, {}, r"answers 405 .*Check what it takes"),
        (422, {"detail": [{"msg": "seed is not permitted"}]}, r"answers 422 .*seed is not permitted.*`omit`"),
        (429, {"error": {"code": "insufficient_quota", "message": "pay"}}, "answers 429 .*Its quota is used up"),
        (404, HTML, "answers 404 .*Bad gateway"),
    ],
)  # fmt: skip
def test_what_no_second_attempt_mends_ends_at_once(serve: Serve, status: int, body: object, message: str) -> None:
    server = serve(always(Sent(status, (body,)) if isinstance(body, bytes) else sent(body, status)))
    with pytest.raises(SourceError, match=message) as caught:
        ask(server, concurrency=1)
    assert len(server.requests) == 1
    assert str(caught.value).isprintable()


def test_what_was_answered_before_a_failure_is_not_lost(serve: Serve) -> None:
    replies: dict[str, Reply] = {}
    server = serve(lambda question, _: sent({}, 404) if question == QUESTIONS[4] else completion())
    spec = Served(url=server.url, model="tiny", concurrency=1)
    with pytest.raises(SourceError, match="answers 404"):
        Client(spec, 16, 100).ask(QUESTIONS, replies.__setitem__)
    assert tuple(replies) == QUESTIONS[:4]


def test_questions_without_an_answer_can_be_reported(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reject one question and lose another: both are reported, without the key, and the others are answered."""
    monkeypatch.setenv("MINE", "of-no-known-form")
    failing = {QUESTIONS[1]: sent({"error": "too long"}, 400), QUESTIONS[3]: sent({"error": "of-no-known-form"}, 500)}
    server = serve(lambda question, _: failing.get(question, completion()))
    replies: dict[str, Reply] = {}
    failed: dict[str, NoReply] = {}
    spec = Served(url=server.url, model="tiny", retries=1, key_env="MINE")
    asking = Client(spec, 16, 100, failed=failed.__setitem__)
    asking.ask(QUESTIONS, replies.__setitem__)
    assert set(replies) == set(QUESTIONS) - set(failing)
    assert {question: (each.status, each.down) for question, each in failed.items()} == {
        QUESTIONS[1]: (400, False), QUESTIONS[3]: (0, False),
    }  # fmt: skip
    assert failed[QUESTIONS[3]].why == "it answers 500 (***)"
    server.stop()
    asking.ask(QUESTIONS[:1], replies.__setitem__)
    assert failed[QUESTIONS[0]].down
    server._server = Server(always(completion()))._server  # for the end of the fixture


def test_an_answer_that_cannot_be_kept_ends_in_one_line(serve: Serve) -> None:
    def full(*_: object) -> None:
        raise HarnessError("no space is left")

    with pytest.raises(HarnessError, match="no space is left"):
        Client(Served(url=serve(always(completion())).url, model="tiny"), 16, 100).ask(QUESTIONS, full)


def test_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    """Record what is waited: it doubles up to the longest pause, less up to half of it."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    monkeypatch.setattr(client, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(client, "LONGEST_PAUSE", 4.0)
    with pytest.raises(SourceError, match="in 5 attempts"):
        ask(serve(always(sent({}, 500))), QUESTIONS[:1], retries=4)
    assert len(pauses) == 4
    assert all(longest / 2 <= pause <= longest for pause, longest in zip(pauses, (1, 2, 4, 4), strict=True))


def test_what_a_server_says_of_the_model_is_kept(serve: Serve) -> None:
    """Expect no fact of the moment, and nothing where the model has another name there."""
    server = serve(always(completion()))
    assert Client(Served(url=server.url, model="tiny"), 16, 1).describe() == {"id": "tiny", "owned_by": "us"}
    assert Client(Served(url=server.url, model="other"), 16, 1).describe() == {}
    assert server.paths == ["/v1/models", "/v1/models"]


@pytest.mark.parametrize(
    ("body", "names"),
    [({"data": [{"id": "a"}, {"id": 1}, "b", {}]}, ("a",)), ({"data": {"id": "a"}}, ()), ({}, ()), ([], ())],
)
def test_the_names_in_a_list_of_models_are_read(body: object, names: tuple[str, ...]) -> None:
    assert listed_models(json.dumps(body).encode()) == names


def test_a_server_without_a_list_of_models_has_no_names(serve: Serve) -> None:
    server = serve(always(completion()))
    assert Client(Served(url=server.url, model="tiny"), 16, 1).models() == ("tiny",)
    server.stop()
    assert Client(Served(url=server.url, model="tiny"), 16, 1).models() == ()
    server._server = Server(always(completion()))._server  # for the end of the fixture
