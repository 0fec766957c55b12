"""Gate a student that a server answers for, each by one command: a server that answers well, and others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from safety_harness.cli.main import main
from tests.fake_server import ANSWER, REFUSAL, Reaction, Sent, Server, completion, sent
from tests.plugin.test_as_it_is import TINY, gate, registry
from tests.served.test_client import HTML, KEY

Serve = Callable[[Reaction], Server]
HARMFUL = {json.loads(line)["text"] for line in (TINY / "prompts" / "harmful.report.jsonl").read_text().splitlines()}


def well(question: str, _: int = 0) -> Sent:
    return completion(REFUSAL if question in HARMFUL else ANSWER)


def served(server: Server, options: str = "retries = 1, timeout = 2.0") -> str:
    """Return the table of a student that *server* answers for."""
    return f'served = {{ url = "{server.url}", model = "tiny", {options} }}'


def outcome(folder: Path) -> dict[str, object]:
    """Return the only student of the results in *folder*, with the run's outcome and reasons."""
    table = json.loads((folder / "reports" / "latest" / "results.json").read_text())
    (student,) = table["students"]
    return {**student, "run": table["outcome"], "reasons": table["reasons"], "subject": table["provenance"]["subject"]}


def test_a_served_student_is_gated(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect a green gate, no request more than announced, and neither the key nor a patch anywhere."""
    monkeypatch.setenv("MY_KEY", KEY)
    server = serve(well)
    registry(tmp_path, served(server, 'key_env = "MY_KEY"'))
    run = gate(tmp_path, "-q", "--gate-include-answers")
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"mine/one: served by {server.url[7:]}/tiny: 73 requests, 433 at most where answers are lost" in run.stdout
    assert len(server.paths) == 73
    student = outcome(tmp_path)
    assert (student["run"], student["subject"]) == ("pass", "served")
    assert set(student["checks"]) == {"defense", "over_refusal", "task"}  # type: ignore[call-overload]
    page = (tmp_path / "reports" / "latest" / "report.md").read_text()
    assert f"served by {server.url[7:]}, model tiny; not measured: perplexity, divergence, minimality" in page
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in run.stdout + run.stderr
    assert not list(tmp_path.rglob("*.jsonl"))  # of the journal; the questions lie elsewhere


@pytest.mark.slow
def test_a_served_student_that_answers_all_is_red(serve: Serve, tmp_path: Path) -> None:
    registry(tmp_path, served(serve(lambda *_: completion(ANSWER))))
    assert gate(tmp_path).returncode == 1
    assert (outcome(tmp_path)["run"], outcome(tmp_path)["outcome"]) == ("fail", "fail")


def on(some: str, response: Sent) -> Reaction:
    """Return the reaction that answers well, but sends *response* to questions that hold *some*."""
    return lambda question, _: response if some in question else well(question)


HOSTILE: Mapping[str, Reaction] = {
    "no key": lambda *_: sent({"error": {"message": "no"}}, 401),
    "no model": lambda *_: sent({"error": {"message": "no"}}, 404),
    "too many": lambda *_: sent({}, 429, **{"retry-after": "9999"}),
    "broken": lambda *_: sent({}, 500),
    "a page": lambda *_: Sent(200, (HTML,)),
    "cut short": lambda *_: Sent(200, (b'{"choices": [{"mess',), length=999),
    "a flood": lambda *_: Sent(200, (b" " * (5 << 20),)),
    "a drip": lambda *_: Sent(200, (b" ",) * 100, seconds=0.2),
    "elsewhere": lambda *_: Sent(302, headers={"location": "http://127.0.0.1:1/"}),
    "filters": lambda *_: sent({"error": {"code": "content_filter"}}, 400),
    "nothing": lambda *_: completion(None),
    "a filter of refusals": lambda question, _: completion(
        REFUSAL, "content_filter" if question in HARMFUL else "stop"
    ),
    "tools": lambda *_: completion(None, "tool_calls", tool_calls=[{"id": "1"}]),
    "thoughts": lambda *_: completion(None, "length", reasoning_content=REFUSAL),
    "one page": on("?", Sent(200, (HTML,))),
}


def test_a_hostile_server_is_never_green(serve: Serve, tmp_path: Path) -> None:
    """Gate a student for each thing that a server may do: INCONCLUSIVE with a reason, in seconds, in one line each."""
    students = {name.replace(" ", "-"): serve(reaction) for name, reaction in HOSTILE.items()}
    tables = [
        f"[families.mine.students.{name}]\n{served(server, 'retries = 1, timeout = 1.0')}\n"
        for name, server in students.items()
    ]
    file = registry(tmp_path, served(serve(well)))
    file.write_text(file.read_text() + "".join(tables))
    run = gate(tmp_path)
    table = json.loads((tmp_path / "reports" / "latest" / "results.json").read_text())
    assert (run.returncode, table["outcome"]) == (1, "inconclusive")
    assert {one["id"][5:]: one["outcome"] for one in table["students"]} == {
        "one": "pass", **dict.fromkeys(students, "inconclusive"),
    }  # fmt: skip
    assert all(one["reasons"] for one in table["students"][1:])
    assert "Traceback" not in run.stdout + run.stderr
    assert "INTERNALERROR" not in run.stdout


@pytest.mark.slow
def test_a_run_that_broke_off_is_taken_up_again(serve: Serve, tmp_path: Path) -> None:
    """Let the server break down for the last questions: the second run asks for these alone."""
    down = [True]
    server = serve(lambda question, _: sent({}, 503) if down[0] and server.questions[40:] else well(question))
    registry(tmp_path, served(server, "retries = 0, concurrency = 1"))
    assert gate(tmp_path).returncode == 1
    assert "Answers so far are kept" in str(outcome(tmp_path)["reasons"])
    before = set(server.questions[:40])
    down[0] = False
    server.requests.clear()
    assert gate(tmp_path).returncode == 0
    assert len(server.questions) == 64 - len(before) + 3 * 4


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ('key_env = "NO_SUCH_KEY"', (), "$NO_SUCH_KEY (`key_env`) is not set"),
        ("retries = 1", ("--gate-teacher", "mine"), "The family 'mine' names no teacher"),
    ],
)
def test_what_cannot_be_asked_is_refused_first(
    serve: Serve, tmp_path: Path, options: str, arguments: tuple[str, ...], message: str
) -> None:
    server = serve(well)
    registry(tmp_path, served(server, options))
    run = gate(tmp_path, *arguments)
    assert run.returncode == 4
    assert message in run.stderr
    assert not server.paths


def test_commands_know_that_a_student_is_served(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(well)
    registry(tmp_path, served(server))
    for arguments, code, message in (
        (("list",), 0, f"served:{server.url[7:]}/tiny"),
        (("fetch", "--family", "mine"), 0, "mine/one: is served by"),
        (("plan", "--family", "mine"), 0, "so no search to plan"),
        (("search", "--student", "mine/one", "--out", "out"), 2, "mine/one: is served, and a patch needs its weights"),
    ):
        assert main([*arguments, "--registry", str(tmp_path / "gate.toml")]) == code
        assert message in "".join(capsys.readouterr())
    assert not server.paths
