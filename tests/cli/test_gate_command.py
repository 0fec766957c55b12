"""Check that ``safety-harness gate`` is the run of the suites, whatever the current folder tells pytest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from safety_harness.cli import gate
from safety_harness.cli.main import main, parser
from safety_harness.registry.options import OPTIONS, settings_options
from tests.plugin.conftest import ROOT, STUDENT, SUITE
from tests.samples import family, write_registry

# Each of these ends or changes a run of pytest in its folder.
HOSTILE = {
    "pytest.ini": "[pytest]\naddopts = --no-such-option\ntestpaths = nowhere\nfilterwarnings = error\n",
    "conftest.py": "raise SystemExit('a conftest.py that breaks')\n",
    "torch.py": "raise SystemExit('no torch')\n",
    "json.py": "raise SystemExit('no json')\n",
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in a hostile folder, over suites whose student is only a name."""
    suites, here = tmp_path / "packaged", tmp_path / "here"
    suites.mkdir()
    here.mkdir()
    (suites / "test_sample.py").write_text(SUITE.replace("import pytest\n", "import pytest\n" + STUDENT, 1))
    (write_registry(here, family("alpha", {"one": "pass", "two": "pass", "weak": "pass"}))).rename(here / "gate.toml")
    for name, text in HOSTILE.items():
        (here / name).write_text(text)
    monkeypatch.chdir(here)
    monkeypatch.setattr(gate, "_packaged_suites", lambda: str(suites))
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def become(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        command = gate.command(parser().parse_args(["gate", *arguments]))
        environment = gate._environment(os.environ)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return lambda *arguments: become(list(arguments))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--student", "one", "--student", "alpha/two"), 0),
        (("--student", "weak", "-n", "0"), 1),
        (("--student", "one", "-n", "0", "--", "-k", "not over_refusal"), 10),
        (("--student", "one", "--gate-dsr", "5"), 4),
        pytest.param(("--student", "gone"), 4, marks=pytest.mark.slow),
        pytest.param(("--student", "one", "-n", "0", "--", "-k", "test_none_is_called_so"), 5, marks=pytest.mark.slow),
    ],
)
def test_a_gate_has_the_exit_codes_of_its_run(run: Run, arguments: tuple[str, ...], code: int) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    if code in (0, 1, 10):
        assert "gate.toml; patched: alpha/" in done.stdout
        assert "release gate" in done.stdout
        assert Path("reports").is_dir()


@pytest.mark.slow
def test_a_suite_of_ones_own_runs_too(run: Run, tmp_path: Path) -> None:
    """Give a suite beside the folder of the run. Its own conftest.py is read, and none above it."""
    own = tmp_path / "own" / "suite"
    own.mkdir(parents=True)
    (own.parent / "conftest.py").write_text("raise SystemExit('above the suite')\n")
    (own / "conftest.py").write_text("import pytest\n@pytest.fixture\ndef name():\n    return 'Ada'\n" + STUDENT)
    (own / "test_own.py").write_text("def test_own(name, student):\n    assert name == 'Ada'\n")
    done = run("--student", "one", "--suites", str(own), "-n", "0", "--", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_own[alpha/one] PASSED" in done.stdout
    assert main(["gate", "--suites", "gone"]) == 4


def test_a_gate_of_nothing_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Expect no trial of the embedded students where a registry was forgotten: its PASS would say nothing."""
    monkeypatch.chdir(tmp_path)
    assert main(["gate"]) == 4
    assert "Write one with `safety-harness init`, name yours with --registry, or try" in capsys.readouterr().err


def test_the_command_becomes_pytest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect every option on pytest's command line behind its prefix, and what follows ``--`` as it is."""
    (tmp_path / "gate.toml").touch()
    monkeypatch.chdir(tmp_path)
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda _, arguments, __: became.append(arguments))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 3))
    given = ["--registry", "a b.toml", "--subject", "student", "--include-answers", "--gate-search-max-probes", "7"]
    assert main(["gate", *given, "-n", "3", "--", "-x", "-k", "a or b"]) == 3
    (arguments,) = became
    assert arguments[-7:] == [
        "--gate-registry=a b.toml", "--gate-subject=student", "--gate-include-answers", "--gate-search-max-probes=7",
        "-x", "-k", "a or b",
    ]  # fmt: skip
    assert arguments[arguments.index("-n") + 1] == "3"


def test_an_option_has_pytests_name_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take an option as a message of the run calls it."""
    (tmp_path / "gate.toml").touch()
    monkeypatch.chdir(tmp_path)
    given = parser().parse_args(["gate", "--gate-student", "a", "--student", "b", "--gate-subject", "student"])
    assert {"--gate-student=a", "--gate-student=b", "--gate-subject=student"} <= set(gate.command(given))


def test_help_has_the_options_of_the_gate_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["gate", "--help"])
    text = capsys.readouterr().out
    for option in OPTIONS[1:]:
        assert f"  --{option.name}" in text
    for option in settings_options():
        assert f"  --gate-{option.name}" in text
    assert "\nexamples:\n" in text
    assert "--capture" not in text
