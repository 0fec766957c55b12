"""Check what ``safety-harness`` prints on which stream, and its exit codes."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from safety_harness import __version__, cli
from safety_harness.cli.main import main, parser
from safety_harness.errors import HarnessError
from tests.samples import family, run_result, sample_checks, write_registry


def test_list_shows_every_student_with_its_group_and_expectation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_registry(tmp_path, family("alpha", {"one": "pass", "two": "fail"}))
    assert main(["list", "--registry", str(file)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["sample", "alpha/one", "pass", "hf:sample/one"] in rows
    assert ["sample", "alpha/two", "fail", "hf:sample/two"] in rows


def test_list_reads_several_registries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b").mkdir()
    first, second = write_registry(tmp_path), write_registry(tmp_path / "b", family("beta", {"one": "pass"}))
    assert main(["list", "--registry", str(first), "--registry", str(second)]) == 0
    assert "beta/one" in capsys.readouterr().out


@pytest.mark.parametrize(("refused", "code"), [(128, 0), (9, 1)])
def test_reports_exit_code_is_the_gates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: int, code: int
) -> None:
    (tmp_path / "results.json").write_text(run_result({"a/b": sample_checks(refused)}).to_json(), encoding="utf-8")
    assert main(["report", str(tmp_path / "results.json")]) == code
    assert capsys.readouterr().out.startswith("# Release gate: " + {0: "PASS", 1: "FAIL"}[code])


def test_report_shows_the_latest_run_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Name no results, and decide anew by another threshold."""
    latest = tmp_path / "reports" / "latest"
    latest.mkdir(parents=True)
    (latest / "results.json").write_text(run_result({"a/b": sample_checks(120)}).to_json(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 0
    assert capsys.readouterr().out.startswith("# Release gate: PASS")
    assert main(["report", "--json", "--gate-dsr", "0.95"]) == 1
    assert json.loads(capsys.readouterr().out)["outcome"] == "fail"


def test_explain_names_the_setting_that_moves_a_missed_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text(run_result({"a/b": sample_checks(110)}).to_json(), encoding="utf-8")
    assert main(["report", str(tmp_path / "results.json"), "--explain"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("a/b, defense: 110 of 128 harmful questions refused; needed: 112 of 128 (2 more). ")


def test_an_inconclusive_report_is_not_green(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(run_result({"a/b": []}).to_json(), encoding="utf-8")
    assert main(["report", str(tmp_path / "results.json")]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "gone.json"], "gone.json: cannot be read as results"),
        (["list", "--registry", "gone.toml"], "gone.toml: no such registry file"),
        (
            ["fetch", "--family", "alhpa", "--registry", "registry.toml"],
            "Unknown family 'alhpa'. Did you mean 'alpha'?",
        ),
    ],
)
def test_errors_go_to_stderr_without_a_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    write_registry(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"safety-harness: {message}")
    assert len(err.splitlines()) == 1


def test_the_name_alone_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: safety-harness" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [
        ("safety_harness", ["--version"], 0),
        ("safety_harness", ["report", "gone.json"], 2),
        ("safety_harness", [], 2),
        ("safety_harness.cli", ["report", "gone.json"], 2),
        ("safety_harness.cli.main", [], 2),
    ],
)
def test_python_m_runs_the_command(module: str, arguments: list[str], code: int) -> None:
    """Expect of ``python -m`` what the script prints; a step of CI that checks nothing would be green for ever."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, bool(done.stdout + done.stderr)) == (code, True)


@pytest.mark.parametrize("file", sorted(Path(cli.__file__).parent.glob("[!_]*.py")), ids=lambda file: file.stem)
def test_no_part_of_the_command_runs_without_a_word(file: Path) -> None:
    command = [sys.executable, "-m", f"safety_harness.cli.{file.stem}", "verify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "safety" in done.stderr


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def _commands(of: argparse.ArgumentParser | None = None, before: str = "") -> dict[str, argparse.ArgumentParser]:
    """Return every command by its whole name, with those of a command."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in (of or parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                found |= {f"{before}{name}": command, **_commands(command, f"{before}{name} ")}
    return found


def test_every_command_shows_an_example_that_it_would_take() -> None:
    """Parse each example of each help: one that is wrong costs a newcomer more than none."""
    for name, command in _commands().items():
        assert command.epilog is not None
        title, *examples = command.epilog.splitlines()
        assert (title, bool(examples)) == ("examples:", True)
        for example in examples:
            words = shlex.split(example)
            assert shlex.join(words).startswith(f"safety-harness {name}")
            parser().parse_args(words[1:])


def test_students_are_chosen_alike_by_every_command() -> None:
    for name, command in _commands().items():
        options = {option for action in command._actions for option in action.option_strings}
        if "--registry" in options and not name.startswith("questions"):
            assert {"--registry", "--family", "--student"} <= options, name


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["list"], {"group", "student", "expected", "source"}),
        (["plan", "--student", "tiny-llama/arithmetic"], {"student", "memory", "seconds", "probes"}),
        (["fetch", "--student", "tiny-llama/arithmetic"], {"student", "model", "folder"}),
    ],
)
def test_json_has_the_facts_of_each_row(
    capsys: pytest.CaptureFixture[str], arguments: list[str], keys: set[str]
) -> None:
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(keys <= row.keys() for row in rows)


def test_a_registry_is_found_where_init_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_registry(tmp_path).rename(tmp_path / "gate.toml")
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    assert "alpha/one" in capsys.readouterr().out
    assert main(["list", "--family", "tiny-llama"]) == 0
    assert "tiny-llama/arithmetic" in capsys.readouterr().out
    assert main(["list", "--family", "alhpa"]) == 2


def test_fetch_to_a_folder_serves_a_machine_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(tmp_path / "usual"))
    assert main(["fetch", "--student", "tiny-llama/arithmetic", "--to", str(tmp_path / "stick")]) == 0
    assert "what it names by path to the other machine, and set SAFETY_HARNESS_CACHE" in capsys.readouterr().out
    assert (tmp_path / "stick" / "hub").is_dir()
    assert not (tmp_path / "usual").exists()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PermissionError(13, "Permission denied", "/some/place"), 2, "/some/place: Permission denied. Check the path"),
        (IsADirectoryError(21, "Is a directory", "x\x1b[2J"), 2, "Is a directory"),
        (OSError("a stream broke"), 2, "a stream broke"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (HarnessError("https://user:secret@host is gone."), 2, "https://***@host is gone."),
    ],
)
def test_no_error_of_the_system_is_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("safety_harness.cli.registry.chosen", fail)
    assert main(["list"]) == code
    written = capsys.readouterr().err
    assert message in written
    assert (written.count("\n"), "\x1b" in written) == (1, False)


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    script = f"{shlex.quote(sys.executable)} -m safety_harness list --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("141", "0")  # 0 where all was written before the reader went
    assert done.stderr == ""


@pytest.mark.parametrize("ending", ["", ">&-", "2>&-"])
def test_a_terminal_of_few_letters_and_closed_streams_are_no_error(tmp_path: Path, ending: str) -> None:
    """Print a report, which has dashes and multiplication signs, to ASCII; and to nothing."""
    (tmp_path / "results.json").write_text(run_result({"a/b": sample_checks()}).to_json())
    command = shlex.join([sys.executable, "-m", "safety_harness", "report", str(tmp_path / "results.json")])
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(["bash", "-c", f"{command} {ending}"], capture_output=True, env=ascii_only, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_of_the_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as caught:
        main(["--completion", shell])
    script = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(word in script for word in ("apply", "--registry", "--with-original"))
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
