"""Give every command wrong input: one line says what is wrong, the exit code is the documented one, nothing is raised.

``RIGHT`` has one right call of every command. Each test changes one thing of it.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from safety_harness.cli.main import main, parser
from safety_harness.evaluation import machine
from safety_harness.patch.apply import apply
from tests.artifacts import make_artifact
from tests.cli.test_init import QUIET, STUDENT, TASKS, TEACHER
from tests.refusal_world import write_questions
from tests.samples import answered, defense, run_result, sample_checks

REGISTRY = """
[families.mine]
teacher = "teacher"
harmful = "tiny"
harmless = "tiny"
text = "tiny"
[families.mine.students.one]
path = "student"
task = "task.jsonl"
"""

pytestmark = pytest.mark.usefixtures("place")
# What each command is given where all is well, in the folder `place`: by name of the argument.
RIGHT: dict[str, dict[str, str]] = {
    "init": {"folder": "new", "student": "student", "teacher": "teacher", "task": "task.jsonl", "yes": ""},
    "doctor": {"registry": "gate.toml", "report_dir": "reports"},
    "gate": {"safety_registry": "gate.toml", "suites": "suite", "safety_patches": "results.json"},
    "rules": {"base": "gate.toml", "change": "gate.toml", "out": "new.toml"},
    "judge": {"answers": "answers.csv", "judges": "judges.toml", "out": "new.jsonl"},
    "questions list": {"registry": "gate.toml"},
    "questions show": {"name": "strongreject", "path": "task.jsonl", "registry": "gate.toml"},
    "list": {"registry": "gate.toml"},
    "fetch": {"registry": "gate.toml", "to": "new"},
    "plan": {"registry": "gate.toml"},
    "search": {"registry": "gate.toml", "earlier": "results.json", "out": "new"},
    "patch": {"results": "results.json", "registry": "gate.toml", "out": "new"},
    "apply": {"patch": "patch", "model": "plain", "out": "new"},
    "revert": {"patch": "patch", "model": "patched", "out": "new", "student": "plain"},
    "verify": {"patch": "patch", "model": "patched"},
    "diff": {"first": "patch", "second": "patch"},
    "export": {"patch": "patch", "model": "plain", "to": "mergekit", "out": "new", "teacher": "other"},
    "upload": {"patch": "patch", "repository": "org/name"},
    "card": {"patch": "patch"},
    "merge": {"results": "results.json", "out": "new.json"},
    "label": {"results": "answers.json", "csv": "new.csv", "out": "labels.csv"},
    "report": {"results": "results.json", "to": "md", "out": "new", "against": "results.json"},
    "reduce": {"file": "task.jsonl", "script": "true", "out": "new", "journal": "journal"},
}
# Wrong places to read from.
INPUTS = {
    "missing": "gone",
    "empty": "empty",
    "binary": "binary",
    "folder": "suite",
    "below a file": "empty/gone",
    "other JSON": "other.json",
    "control characters": "a\nb\x1b[2J",
    "no Unicode": "größe \udcff",
    "too long": "x" * 300,
}
# Places that nothing can be written to.
OUTPUTS = {"below a file": "empty/new", "no permission": "/proc/new/new", "too long": "x" * 300}
WRITTEN = {"out", "to", "folder", "report_dir", "journal", "csv"}
# Not an error, (command, argument): kinds -> exit code.
HEALTHY: dict[tuple[str, str], dict[str, int]] = {
    # A base branch without rules of its own: the change brings the gate, or all that was gated stays so.
    ("rules", "base"): dict.fromkeys(("missing", "empty", "control characters", "no Unicode"), 0),
    ("rules", "change"): {"empty": 0},
    ("reduce", "file"): dict.fromkeys(("empty", "binary", "other JSON"), 0),
    # What cannot be written to is a finding.
    ("doctor", "report_dir"): dict.fromkeys(("below a file", "no permission", "too long"), 1),
}
# Commands that need a network or minutes where all is well.
LONG = {"gate", "search", "patch", "upload"}


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything that a command reads, right and wrong."""
    folder = tmp_path_factory.mktemp("wrong") / "with a space"
    folder.mkdir()
    shutil.copytree(STUDENT, folder / "student")
    shutil.copytree(TEACHER, folder / "teacher")
    shutil.copy(TASKS / "capitals.report.jsonl", folder / "task.jsonl")
    with (folder / "task.jsonl").open("a") as task:
        task.write((TASKS / "capitals.search.jsonl").read_text())
    made = make_artifact(folder / "made", write_questions(folder), whole=True)
    apply(made.artifact, made.student, folder / "patched")
    shutil.copytree(made.artifact.folder, folder / "patch")
    shutil.copytree(made.student, folder / "plain")
    shutil.copytree(made.teacher, folder / "other")
    shutil.rmtree(folder / "made")
    (folder / "gate.toml").write_text(REGISTRY)
    (folder / "results.json").write_text(run_result({"a/b": sample_checks()}).to_json())
    answers = run_result({"a/b": [answered(defense(0, 128)), *sample_checks()[1:]]})
    (folder / "answers.json").write_text(answers.to_json())
    (folder / "answers.csv").write_text("answer,label\nI cannot help with that.,refused\n")
    (folder / "judges.toml").write_text('[judges.mine]\nkind = "rules"\n')
    (folder / "suite").mkdir()
    (folder / "empty").touch()
    (folder / "binary").write_bytes(random.Random(0).randbytes(3_000))
    (folder / "other.json").write_text('{"a": [1]}')
    return folder


@pytest.fixture
def place(everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder under another name, whose files are links, as the working folder of a quiet machine."""
    folder = shutil.copytree(everything, tmp_path / everything.name, copy_function=os.link)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(machine, "measure", lambda: QUIET)
    return folder


@functools.cache
def commands(of: argparse.ArgumentParser | None = None, before: str = "") -> dict[str, argparse.ArgumentParser]:
    """Return every command that does something, by its whole name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in (of or parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                found |= commands(command, f"{before}{name} ") or {f"{before}{name}": command}
    return found


def call(name: str, given: Mapping[str, str]) -> list[str]:
    """Return the command line of a command, with the values *given* to its arguments."""
    words: list[str] = []
    positional: list[str] = []
    for action in commands()[name]._actions:
        if action.dest not in given or action.help == argparse.SUPPRESS:
            continue
        value = given[action.dest]
        if not action.option_strings:
            positional.append(value)
        else:
            words += [action.option_strings[-1]] if action.nargs == 0 else [f"{action.option_strings[-1]}={value}"]
    return [*name.split(), *words, "--", *positional] if positional else [*name.split(), *words]


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int | str | None, str, str]:
    """Return the exit code of a call, and what it wrote on either stream."""
    try:
        code: int | str | None = main(words)
    except SystemExit as end:
        code = end.code
    written = capsys.readouterr()
    return code, written.out, written.err


def is_read(action: argparse.Action, name: str) -> bool:
    """Return whether an argument is a place that a command reads."""
    named = name == "init" and action.dest in {"student", "teacher", "task"}
    return (action.type is Path or named) and action.dest not in WRITTEN


def is_written(action: argparse.Action, _: str) -> bool:
    """Return whether an argument is a place that a command writes to."""
    return action.type is Path and action.dest in WRITTEN


def wrong_places(
    kinds: Mapping[str, str], wanted: Callable[[argparse.Action, str], bool]
) -> list[tuple[str, str, str]]:
    """Return every command with each of its arguments that is *wanted*, and each kind of wrong place."""
    return [
        (name, action.dest, kind)
        for name, command in commands().items()
        if name != "gate"  # it hands its places to pytest; tests/plugin has them
        for action in command._actions
        if wanted(action, name) and action.help != argparse.SUPPRESS
        for kind in kinds
        # A name of two parts may be one of a hub.
        if (name, kind) != ("init", "below a file") or action.dest not in {"student", "teacher"}
    ]


def test_every_command_has_a_right_call() -> None:
    """Fail for a command that is not in the table: its wrong input would go unseen."""
    assert set(RIGHT) == set(commands())
    for name, given in RIGHT.items():
        assert set(given) <= {action.dest for action in commands()[name]._actions}


@pytest.mark.parametrize("name", sorted(RIGHT.keys() - LONG))
def test_the_right_call_is_right(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Hold the table itself to account: with a wrong one, every other test here would see another error."""
    code, _, err = said(call(name, RIGHT[name]), capsys)
    assert code == 0, err


@pytest.mark.parametrize(("name", "argument", "kind"), wrong_places(INPUTS, is_read))
def test_a_wrong_place_to_read_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], name: str, argument: str, kind: str
) -> None:
    """Name a place that is missing, empty, binary or of another kind, or that breaks a line."""
    code, out, err = said(call(name, RIGHT[name] | {argument: INPUTS[kind]}), capsys)
    assert code == HEALTHY.get((name, argument), {}).get(kind, 2), out + err
    assert err.count("\n") == (code == 2), err
    assert "\x1b" not in out + err
    if code == 2:
        assert err.isprintable() or err[:-1].isprintable()
        assert not (place / "new").exists()


@pytest.mark.parametrize(("name", "argument", "kind"), wrong_places(OUTPUTS, is_written))
def test_a_place_that_cannot_be_written_is_one_line(
    capsys: pytest.CaptureFixture[str], name: str, argument: str, kind: str
) -> None:
    """Write below a file, where nobody may, and to a name that no disk takes."""
    code, out, err = said(call(name, RIGHT[name] | {argument: OUTPUTS[kind]}), capsys)
    assert code == HEALTHY.get((name, argument), {}).get(kind, 2), out + err
    assert err.count("\n") == (code == 2), err


@pytest.mark.parametrize("name", RIGHT)
def test_a_typo_in_an_option_names_the_nearest_one(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Exchange two letters of each option of each command."""
    wrong_usage = 4 if name == "gate" else 2
    for action in commands()[name]._actions:
        if not action.option_strings or action.help == argparse.SUPPRESS or len(action.option_strings[-1]) < 4:
            continue
        option = action.option_strings[-1]
        code, out, err = said([*call(name, RIGHT[name])[: len(name.split())], f"{option[:-2]}x{option[-2:]}"], capsys)
        assert (code, out, err.count("\n")) == (wrong_usage, "", 1), err
        assert f"safety-harness {name}" in err


@pytest.mark.parametrize("name", RIGHT)
def test_a_wrong_value_of_an_option_is_one_line(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Give a word where a number is wanted, and a word that is not among the known ones."""
    wrong_usage = 4 if name == "gate" else 2
    for action in commands()[name]._actions:
        if action.help == argparse.SUPPRESS or not (action.choices or action.type not in (None, Path)):
            continue
        code, out, err = said(call(name, RIGHT[name] | {action.dest: "1e-3x"}), capsys)
        assert (code, out, err.count("\n")) == (wrong_usage, "", 1), err
        assert action.option_strings[-1] in err


@pytest.mark.parametrize("name", [name for name in RIGHT if "registry" in RIGHT[name]])
def test_a_typo_in_a_name_suggests_the_right_one(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Misspell a family, a student and a set."""
    known = {action.dest for action in commands()[name]._actions}
    for argument, typo, right in (
        ("family", "mien", "mine"),
        ("student", "oen", "mine/one"),
        ("name", "xstst", "xstest"),
    ):
        if argument in known and (argument != "student" or name != "revert"):
            code, out, err = said(call(name, RIGHT[name] | {argument: typo}), capsys)
            assert (code, out, err.count("\n")) == (2, "", 1), err
            assert f"Did you mean {right!r}?" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inti"], "unknown value 'inti'. Did you mean 'init'?"),
        (["questions", "lsit"], "Did you mean 'list'?"),
        (["questions"], "required: COMMAND"),
        (["rules", "a", "b", "c", "--out", "d"], "unknown argument 'c'"),
        (["--completion", "fish"], "unknown value 'fish'. Known: bash, zsh, tcsh."),
        (["init", "new", "--yes"], "Name it with --student"),
        (["init", "new", "--student", "student", "--task", "arithmtic", "--yes"], "Did you mean 'arithmetic'?"),
        (["init", "new", "--student", "student", "--task", "table.csv", "--yes"], "NAME OF ITS COLUMN"),
        (["init", "empty", "--student", "student", "--yes"], "is a file"),
        (
            ["init", "--student", "student", "--yes"],
            "gate.toml: exists. Write to another folder",
        ),
        (["gate", "--suites", "gone"], "--suites: gone does not exist"),
        (["report", "results.json", "--gate-dsr", "5"], "less than or equal to 1"),
        (["report", "results.json", "--to", "docx"], "'docx' is no format"),
        (["report", "results.json", "--not-worse"], "--not-worse needs --against"),
        (["apply", "patch", "plain", "--out", "plain"], "plain"),
        (["apply", "patch", "other", "--out", "new"], "other"),
        (["apply", "patch", "student", "--out", "new"], "student"),
        (["export", "patch", "plain", "--to", "mergekit", "--out", "new"], "--teacher is missing"),
        (["upload", "patch", "no-owner"], "no-owner: a repository's name on a hub is OWNER/NAME"),
        (["reduce", "task.jsonl", "gone-script"], "gone-script"),
        (["rules", "bsae/gate.toml", "gate.toml", "--out", "new.toml"], "bsae/gate.toml: its folder does not exist"),
    ],
)
def test_a_slip_is_answered_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """Make the slips of a first day."""
    (place / "table.csv").write_text("question;answer\nWhat is 1 plus 1?;2\n")
    code, _, err = said(words, capsys)
    assert (code, err.count("\n")) == (4 if words[0] == "gate" else 2, 1), err
    assert message in err
