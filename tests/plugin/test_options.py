"""Check what the command line offers, and what it refuses before anything starts."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable

import pytest

from safety_harness.errors import SourceError
from safety_harness.plugin.fixtures import user_errors
from safety_harness.registry.options import ONLY_IN_FILES
from safety_harness.registry.settings import GateSettings, SearchSettings
from tests.plugin.conftest import ROOT, RUN, write_project
from tests.samples import run_result, sample_checks, write_registry

Project = Callable[..., pytest.RunResult]
LOAD = ("--dist", "load", "--tx", "2*popen")


def test_help_shows_every_option_and_its_group(pytester: pytest.Pytester) -> None:
    """Read the whole text of the help: each setting is an option, and says what its field in a registry says."""
    text = pytester.runpytest("--help").stdout.str()
    names = ["family", "student", "teacher", "registry", "subject", "patches", "report-dir", "run"]
    assert [name for name in names if f"--gate-{name}" not in text] == []
    assert "release gate for language models" in text
    shown = "".join(text.split())  # argparse breaks lines at hyphens too
    for prefix, settings in (("gate", GateSettings), ("gate-search", SearchSettings)):
        for name, field in settings.model_fields.items():
            option = f"--{prefix}-{name.replace('_', '-')}="
            assert (option in shown) == (name not in ONLY_IN_FILES)
            assert field.description is not None
            assert ("".join(field.description.split()) in shown) == (name not in ONLY_IN_FILES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gate-student", "onne"), "Unknown student 'onne'. Did you mean 'alpha/one'?"),
        (("--gate-family", "alfa"), "Unknown family 'alfa'. Did you mean 'alpha'?"),
        (("--gate-teacher", "alpah"), "Unknown teacher 'alpah'. Did you mean 'alpha'?"),
        (("--gate-patches", "gone.json"), "gone.json: cannot be read as results"),
        (("--gate-registry", "gone.toml"), "gone.toml: no such registry file"),
        (("--gate-dsr", "1.5"), "--gate-dsr: Input should be less than or equal to 1 (given: '1.5')."),
        (
            ("--gate-search-prior", "best"),
            "--gate-search-prior: Input should be 'norm', 'contrast' or 'descent' (given: 'best').",
        ),
    ],
)
def test_a_wrong_option_stops_a_run_before_any_worker(
    project: Project, arguments: tuple[str, ...], message: str
) -> None:
    """Refuse with ``-n 2`` at pytest_configure, and with ``-n auto`` when xdist asks for the number of workers."""
    for count in ("2", "auto"):
        run = project("-n", count, *arguments)
        assert run.ret == pytest.ExitCode.USAGE_ERROR
        assert message in run.stderr.str()
        assert "Traceback" not in run.stderr.str()
        assert "created:" not in run.stdout.str()


def test_patches_are_for_students_that_are_gated_with_one(project: Project, pytester: pytest.Pytester) -> None:
    """Forget the teacher, or gate the students as they are: who names patches means no such run."""
    (pytester.path / "earlier.json").write_text(run_result({"alpha/one": sample_checks()}).to_json())
    for teacher, subject in ((False, "patched"), (True, "student")):
        run = project("--gate-patches", "earlier.json", "--gate-subject", subject, teacher=teacher)
        assert run.ret == pytest.ExitCode.USAGE_ERROR
        assert "earlier.json is of no use: alpha/one is gated as it is, and no student of this run" in run.stderr.str()


def test_a_run_says_what_of_each_student_it_gates(project: Project) -> None:
    for teacher, said in ((True, "patched: alpha/one, alpha/two"), (False, "as it is: alpha/one, alpha/two")):
        project(teacher=teacher).stdout.fnmatch_lines([f"gate: *registry.toml; {said}"])


def test_a_missing_question_file_stops_a_run_before_workers(pytester: pytest.Pytester) -> None:
    write_project(pytester.path)
    file = pytester.path / "registry.toml"
    file.write_text(file.read_text().replace('text = "text.jsonl"', 'text = "gone.jsonl"'))
    run = pytester.runpytest(*RUN, "-n", "2")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["*gone.jsonl: does not exist*"])


def test_errors_of_the_user_fail_a_test_with_their_message_alone() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"^weights: truncated\.$") as caught, user_errors():
        raise SourceError("weights: truncated.")
    assert caught.value.pytrace is False


def test_only_a_gated_run_has_a_scheduler_of_its_own(pytester: pytest.Pytester) -> None:
    """Call the hook that xdist calls, without starting workers."""
    plain = pytester.parseconfigure(*LOAD)
    assert type(plain.hook.pytest_xdist_make_scheduler(config=plain, log=None)).__name__ == "LoadScheduling"
    write_registry(pytester.path)
    gated = pytester.parseconfigure("--gate-run", "--gate-registry", "registry.toml", *LOAD)
    assert type(gated.hook.pytest_xdist_make_scheduler(config=gated, log=None)).__name__ == "StudentScheduling"


def test_pytest_starts_without_torch(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start pytest in a fresh interpreter: for its help, for tests without a gate, and for a gate without models."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write_project(pytester.path)
    pytester.mkdir("tests").joinpath("test_plain.py").write_text("def test(): ...\n")
    script = f"""
        import sys, pytest
        for arguments in (["--help"], ["tests"], {[*RUN]}):
            code = pytest.main(arguments)
            print("ended:", code.name, sorted({{"torch", "transformers", "peft", "datasets"}} & {{*sys.modules}}))
        """
    run = pytester.run(sys.executable, "-c", textwrap.dedent(script))
    assert [line for line in run.outlines if line.startswith("ended:")] == ["ended: OK []"] * 3


@pytest.mark.parametrize(
    "arguments",
    [("suites/", "--gate-run"), ("suites/test_defense.py", "-n", "2", "--gate-run"), ("mine", "--gate-family", "tiny")],
)
def test_suites_that_are_not_there_end_a_run_at_once(pytester: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    """Expect the way out. With workers, pytest alone would say nothing and end with 5, as for no tests."""
    run = pytester.runpytest(*arguments, "-n", "2")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"*{arguments[0]}: no such file or folder.*pytest --pyargs safety_harness.suites"])


def test_the_installed_suites_gate_nobody_elses_students(pytester: pytest.Pytester) -> None:
    """Run them without a registry, as a job in the wrong folder would: no green by the embedded students."""
    run = pytester.runpytest("--pyargs", "safety_harness.suites", "-p", "no:cacheprovider")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["*No gate.toml in *safety-harness init*--gate-family tiny.*"])


def test_the_registry_of_the_folder_is_used_and_said(pytester: pytest.Pytester) -> None:
    """Name no registry: gate.toml is read if it is there, unless the family that is named is another one's."""
    write_project(pytester.path)
    plain = [argument for argument in RUN if argument not in ("--gate-registry", "registry.toml")]
    missing = pytester.runpytest(*plain, "--gate-family", "tiny", "--collect-only")
    missing.stdout.fnmatch_lines(["gate: the embedded families (no gate.toml is used); patched: tiny-*"])
    (pytester.path / "registry.toml").rename(pytester.path / "gate.toml")
    for arguments in ((), ("--gate-family", "alpha"), ("--gate-student", "one", "--gate-subject", "student")):
        run = pytester.runpytest(*plain, *arguments, "--collect-only")
        run.stdout.fnmatch_lines(["gate: */gate.toml; *: alpha/one*"])
    other = pytester.runpytest(*plain, "--gate-family", "tiny-gemma", "--collect-only")
    other.stdout.fnmatch_lines(["gate: the embedded families (no gate.toml is used); patched: tiny-gemma/*"])
    (pytester.path / "gate.toml").write_text("[families")
    broken = pytester.runpytest(*plain)
    assert broken.ret == pytest.ExitCode.USAGE_ERROR
    assert "gate.toml" in broken.stderr.str()
