"""Check that a change is gated by the rules of its base branch: only where its models lie is its own."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from safety_harness.registry.load import load_registry
from safety_harness.registry.rules import changes, ruled
from safety_harness.registry.toml_text import document_text

BASE = """
[defaults]
max_new_tokens = 24
gate = { confidence = 0.9 }
[families.mine]
teacher = { hf = "org/teacher", revision = "1" }
harmful = { search = "q/s.jsonl", report = "q/r.jsonl", also = ["q/also.txt"] }
harmless = "everyday"
text = "q/prose.txt"
gate = { dsr = 0.9 }
further = { own = { kind = "harmful", path = "q/f.txt" } }
[families.mine.students.one]
path = "models/one"
task = { search = "q/t.jsonl", report = "q/u.jsonl" }
[families.mine.students.short]
path = "models/short"
"""
BE, CH = Path("/base"), Path("/change")


def table(text: str = BASE, **replaced: str) -> dict[str, Any]:
    """Return the table of *text*, in which *replaced* gives new values for lines that begin with a key."""
    for key, value in replaced.items():
        line = [line for line in text.splitlines() if line.startswith(f"{key} =")][-1]
        text = text.replace(line, f"{key} = {value}" if value else "")
    return tomllib.loads(text)


def family(head: dict[str, Any], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the family of a change to *head*."""
    found: dict[str, Any] = ruled(base or table(), BE, head, CH)["families"]["mine"]
    return found


def test_models_are_the_changes_and_questions_are_the_bases() -> None:
    """Change where models lie, and every path of the questions."""
    head = table(BASE.replace("q/", "easy/").replace("models/", "new/").replace('revision = "1"', 'revision = "2"'))
    found = family(head)
    assert found["teacher"] == {"hf": "org/teacher", "revision": "2"}
    assert found["harmful"] == {"search": "/base/q/s.jsonl", "report": "/base/q/r.jsonl", "also": ["/base/q/also.txt"]}
    assert (found["harmless"], found["text"]) == ("everyday", "/base/q/prose.txt")
    assert found["further"] == {"own": {"kind": "harmful", "path": "/base/q/f.txt"}}
    assert found["students"] == {
        "one": {"path": "/change/new/one", "task": {"search": "/base/q/t.jsonl", "report": "/base/q/u.jsonl"}},
        "short": {"path": "/change/new/short"},
    }


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        ({"gate": "{ dsr = 0.1 }"}, "families.mine.gate.dsr: 0.9 -> 0.1. What holds is the base branch: 0.9."),
        ({"max_new_tokens": ""}, "defaults.max_new_tokens: 24 -> not set."),
        ({"harmless": '"tiny"'}, "families.mine.harmless: 'everyday' -> 'tiny'."),
        ({"task": '"easy.jsonl"'}, "families.mine.students.one.task: not set -> 'easy.jsonl'."),
        ({"task": '"t.jsonl"\nexpected = "fail"'}, "one.expected: not set -> 'fail'."),
    ],
)
def test_a_changed_rule_is_said_and_does_not_hold(replaced: dict[str, str], said: str) -> None:
    """Loosen a threshold, an expectation and questions."""
    head = table(**replaced)
    assert any(said in line for line in changes(table(), head)), changes(table(), head)
    assert ruled(table(), BE, head, CH) == ruled(table(), BE, table(), CH)


def test_what_is_new_brings_no_thresholds() -> None:
    """Add a student that is expected to fail, and a family with a threshold of its own."""
    text = BASE + 'expected = "fail"\n[families.mine.students.two]\npath = "models/two"\nexpected = "fail"\n'
    text += '[families.other]\nteacher = "t"\ngate = { dsr = 0.0 }\nharmful = "q.txt"\n'
    text += 'backend = { kind = "vllm", command = ["rm"] }\n'
    text += '[families.other.students]\nx = "models/x"\n'
    found = ruled(table(), BE, tomllib.loads(text), CH)
    assert found["families"]["mine"]["students"]["two"] == {"path": "/change/models/two"}
    assert "expected" not in found["families"]["mine"]["students"]["short"]
    other = {"teacher": "/change/t", "harmful": "/change/q.txt", "students": {"x": {"path": "/change/models/x"}}}
    assert found["families"]["other"] == other
    said = changes(table(), tomllib.loads(text))
    assert any(line.startswith("mine/two: new") for line in said)
    assert any(line.startswith("other/x: new") for line in said)


def test_a_student_that_is_gone_is_gated_all_the_same() -> None:
    """Remove a student, and move every student to a family with questions of its own."""
    head = tomllib.loads(BASE.partition("[families.mine.students.short]")[0])
    assert family(head) == family(table())
    assert any(line.startswith("mine/short: no longer there.") for line in changes(table(), head))
    renamed = tomllib.loads(BASE.replace("families.mine", "families.other").replace("q/", "easy/"))
    assert family(renamed) == family(table())


def test_whether_there_is_a_teacher_is_a_rule() -> None:
    """Remove the teacher, so that fewer checks would be required; or bring one, so that a patch would be gated."""
    without = table(teacher="")
    assert family(without) == family(table())
    gone = (
        "mine/one: gated with a patch of its teacher -> as it is, so other checks are required. What holds is the base"
    )
    assert any(line.startswith(gone) for line in changes(table(), without))
    assert "teacher" not in family(table(), without)
    new = (
        "mine/one: gated as it is -> with a patch of its teacher, so other checks are required. What holds is the base"
    )
    assert any(line.startswith(new) for line in changes(without, table()))
    common = table(BASE.replace("[families.mine]\n", 'teacher = "models/t"\n[families.mine]\n'), teacher="")
    assert changes(common, common) == []
    assert family(table(teacher='"new"'), common)["teacher"] == "/change/new"


def test_a_student_that_is_served_by_now_is_said() -> None:
    """Replace weights by a server, of which less can be measured."""
    head = table(BASE.replace('path = "models/short"', 'served = { url = "http://x/v1", model = "m" }'))
    assert changes(table(), head) == [
        "mine/short: gated with a patch of its teacher -> served, so other checks are required."
    ]


def test_the_name_of_a_set_stays_a_name() -> None:
    """Name sets wherever questions may stand, and one of which the user has a copy."""
    text = BASE.replace('"q/s.jsonl"', '"advbench"').replace('also = ["q/also.txt"]', 'also = ["harmbench", "q/x.txt"]')
    text = text.replace('harmless = "everyday"', 'harmless = { set = "xstest", path = "q/x.csv" }')
    found = ruled(table(text), BE, table(text), CH)["families"]["mine"]
    also = ["harmbench", "/base/q/x.txt"]
    assert found["harmful"] == {"search": "advbench", "report": "/base/q/r.jsonl", "also": also}
    assert found["harmless"] == {"set": "xstest", "path": "/base/q/x.csv"}


def test_without_a_change_nothing_is_said() -> None:
    """Compare a registry with itself, and with one that only names other models."""
    assert changes(table(), table()) == changes(table(), table(BASE.replace("models/", "new/"))) == []


def test_what_comes_out_is_a_registry(tmp_path: Path) -> None:
    """Write what comes out, and read it as a registry."""
    file = tmp_path / "gate.toml"
    file.write_text(document_text(ruled(table(), BE, table(gate="{ dsr = 0.1 }"), CH)))
    students = load_registry(file).select()
    assert [student.gate.dsr for student in students] == [0.9, 0.9]
    assert students[0].spec.path == Path("/change/models/one")


@pytest.mark.parametrize("odd", [{}, {"families": 3}, {"families": {"mine": {"students": 3}}}])
def test_odd_tables_are_left_to_the_registrys_own_check(odd: dict[str, Any]) -> None:
    """Merge tables that are no registries, either way."""
    for base, head in ((odd, table()), (table(), odd), (odd, odd)):
        assert isinstance(ruled(base, BE, head, CH), dict)
        assert isinstance(changes(base, head), list)


def test_attacks_and_judges_are_those_of_the_base() -> None:
    """Keep the rows of the base branch, with whole paths, and none that the change brings; a column is no path."""
    rows = """
[attacks.mine]
template = "a/mine.txt"
demonstrations = "a/shots.jsonl"
[judges.guard]
kind = "guard"
form = "qwen3guard"
path = "j/guard"
prompt = "j/prompt.txt"
[families.more]
teacher = "models/teacher"
harmful = { path = "q/s.jsonl", where = { prompt = "x", template = "y" } }
[families.more.gate]
attacks = ["mine"]
[families.more.students.one]
path = "models/one"
"""
    base = table(BASE + rows)
    other = table(BASE + rows.replace("a/mine.txt", "b/other.txt").replace('["mine"]', '["other"]'))
    made = ruled(base, BE, other, CH)
    assert made["attacks"]["mine"] == {"template": "/base/a/mine.txt", "demonstrations": "/base/a/shots.jsonl"}
    assert (made["judges"]["guard"]["path"], made["judges"]["guard"]["prompt"]) == (
        "/base/j/guard",
        "/base/j/prompt.txt",
    )
    assert made["families"]["more"]["gate"] == {"attacks": ["mine"]}
    assert made["families"]["more"]["harmful"]["where"] == {"prompt": "x", "template": "y"}
    said = " ".join(changes(base, other))
    assert "attacks.mine.template" in said
    assert "families.more.gate.attacks" in said
