"""Ways to lose evidence in a run: none of them is green.

Each way is one of a project's: a suite, a conftest.py, an option, a setting of pytest.
``tests/gate/test_forged_results.py`` has the ways to forge a results.json afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Project = Callable[..., pytest.RunResult]
HEAD = "import os, pytest\nfrom dataclasses import replace\nfrom tests.samples import *\n"
CHECKS = HEAD + "from safety_harness.gate.results import Check, Outcome\n"
KNOWN_RED = {"weak": "fail"}


@dataclass(frozen=True)
class Way:
    """What a project adds to its suites, and how pytest is called."""

    more: str = ""
    """A suite that runs before the others."""
    conftest: str = ""
    """Hooks of the project."""
    arguments: tuple[str, ...] = ()
    students: Mapping[str, str] = field(default_factory=lambda: {"one": "pass"})
    addopts: str = ""
    """Options in pytest.ini."""


def marked(mark: str, test: str = "test_over_refusal") -> str:
    """Return a hook that gives *test* a mark."""
    return (
        "def pytest_collection_modifyitems(items):\n"
        f"    [item.add_marker({mark}) for item in items if item.originalname == {test!r}]\n"
    )


def without(*options: str) -> Way:
    """Return the way of the options *options*, with a student that is a known red."""
    return Way(arguments=options, students=KNOWN_RED)


def known_red(more: str) -> Way:
    """Return the way of a known red whose project has another test."""
    return Way(CHECKS + more, students=KNOWN_RED)


FAILS = "def test_other(student, measure):\n    weak = sample_checks(9)[0]\n"
EXIT = HEAD + "def test_mine(student):\n    pytest.exit('enough', returncode=0)\n"
STOP = "def test_mine(student, request):\n    request.session.shouldstop = 'enough'\n"
LAST = "def pytest_collection_modifyitems(items):\n    items.sort(key=lambda item: 'test_before' in item.nodeid)\n"

# What pytest-rerunfailures does.
AGAIN = """
def pytest_runtest_protocol(item, nextitem):
    from _pytest.runner import runtestprotocol
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(3):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        for report in reports:
            if report.failed and attempt < 2:
                report.outcome = "rerun"
            item.ihook.pytest_runtest_logreport(report=report)
        if not any(report.outcome in ("failed", "rerun") for report in reports):
            break
    return True
"""

DESELECTED = {
    "by -k, the defense": Way(arguments=("-k", "not defense")),
    "by -k, the over-refusal": Way(arguments=("-k", "not over_refusal")),
    "by -k, all but the defense": Way(arguments=("-k", "test_defense")),
    "by -k, everything": Way(arguments=("-k", "nothing")),
    "by -m": Way(arguments=("-m", "slow")),
    "by --deselect": Way(arguments=("--deselect", "suites/test_sample_suite.py::test_the_rest[alpha/one]")),
    "by --ignore": Way(arguments=("--ignore", "suites/test_sample_suite.py")),
    "by another name of tests": Way(arguments=("-o", "python_functions=check_*")),
    "by another name of files": Way(arguments=("-o", "python_files=check_*.py")),
    "by pytest.ini": Way(addopts="-k 'not defense'"),
    "by a student's name": Way(arguments=("-k", "alpha/one"), students={"one": "pass", "two": "pass"}),
    "by a hook": Way(
        conftest="def pytest_collection_modifyitems(items):\n"
        "    items[:] = [item for item in items if 'rest' not in item.nodeid]\n"
    ),
    "by a list of what is ignored": Way(conftest="collect_ignore = ['test_sample_suite.py']\n"),
}
SKIPPED = {
    "by a mark": Way(conftest=marked("pytest.mark.skip")),
    "by a mark with a condition": Way(conftest=marked("pytest.mark.skipif(True, reason='too slow')")),
    "by a hook before the test": Way(
        conftest="def pytest_runtest_setup(item):\n    if 'defense' in item.name: pytest.skip('not today')\n"
    ),
    "by a fixture": Way(
        conftest="def pytest_fixture_setup(fixturedef):\n"
        "    if fixturedef.argname == 'found': pytest.skip('not today')\n"
    ),
    "as expected to fail, without a run": Way(conftest=marked("pytest.mark.xfail(run=False)")),
    "as expected to fail, and it fails": Way(
        conftest=marked("pytest.mark.xfail", "test_defense"), students={"weak": "pass"}
    ),
    "by a loop that runs nothing": Way(conftest="def pytest_runtestloop():\n    return True\n"),
    "by a protocol that runs nothing": Way(conftest="def pytest_runtest_protocol():\n    return True\n"),
    "by a call that calls nothing": Way(conftest="def pytest_pyfunc_call():\n    return True\n"),
}
BROKEN = {
    "an error in a test": Way("def test_mine(student):\n    raise ValueError\n"),
    "an assertion about something else": Way("def test_mine(student):\n    assert not student\n"),
    "an error in a fixture": Way(HEAD + "@pytest.fixture\ndef bad():\n    1 / 0\ndef test_mine(student, bad): pass\n"),
    "an error after a test": Way(
        HEAD + "@pytest.fixture\ndef bad():\n    yield\n    1 / 0\ndef test_mine(student, bad): pass\n"
    ),
    "an error on collection": Way("import no_such_module\n"),
    "an error on collection, and on it goes": Way(
        "import no_such_module\n", arguments=("--continue-on-collection-errors",)
    ),
    "an exit inside of a test": Way("def test_mine(student):\n    raise SystemExit(0)\n"),
    "a check that is another's": Way(
        CHECKS + "def test_mine(measure):\n    measure(Check('task', Outcome.FAIL, ''))\n"
    ),
}
RERUN = {
    "until a check passes": Way(
        CHECKS + "refused = [9, 9, 128]\ndef test_mine(measure):\n    measure(defense(0, refused.pop(0))).require()\n",
        conftest=AGAIN,
    ),
    "until nothing breaks": Way(
        "left = [OSError, OSError]\ndef test_mine(student):\n    if left: raise left.pop()\n", conftest=AGAIN
    ),
}
INTERRUPTED = {
    "by a key": Way("def test_mine(student):\n    raise KeyboardInterrupt\n"),
    "by an exit that calls itself well": Way(EXIT),
    "by that exit, after every check": Way(EXIT, conftest=LAST),
    "by that exit, in a worker": Way(EXIT, arguments=("-n", "1")),
    "by a session that should stop": Way(STOP),
    "by a session that should fail": Way(STOP.replace("stop", "fail")),
    "by the first failure": Way("def test_mine(student):\n    assert not student\n", arguments=("-x",)),
    "by the death of a worker": Way(
        HEAD + "def test_mine(student):\n    os._exit(0)\n", arguments=("-n", "1", "--max-worker-restart", "0")
    ),
    "by that death, after every check": Way(
        HEAD + "def test_mine(student):\n    os._exit(0)\n",
        conftest=LAST,
        arguments=("-n", "1", "--max-worker-restart", "0"),
    ),
}
A_KNOWN_RED = {
    "without its over-refusal": without("-k", "not over_refusal"),
    "without its own task and the rest": without("-k", "not the_rest"),
    "with its defense alone": without("-k", "test_defense"),
    "without the check that fails": without("-k", "not defense"),
    "with a check that is skipped": Way(conftest=marked("pytest.mark.skip"), students=KNOWN_RED),
    "that passes": Way(students={"one": "fail"}),
    "with an assertion of another test": known_red("def test_other(student):\n    assert not student\n"),
    "with an assertion beside a check that passes": known_red(
        "def test_other(student, measure):\n    measure(sample_checks()[1]).require()\n    assert not student\n"
    ),
    "with an assertion beside its failing check": known_red(f"{FAILS}    measure(weak)\n    assert not student\n"),
    "with a failing check that it does not measure": Way(
        f"{CHECKS}{FAILS}    weak.require()\n", students={"one": "fail"}
    ),
    "with an error beside its failing check": known_red(f"{FAILS}    measure(weak)\n    raise OSError\n"),
    "with an error after its failing check": known_red(
        f"@pytest.fixture\ndef bad():\n    yield\n    1 / 0\n{FAILS.replace('measure)', 'measure, bad)')}"
        "    measure(weak).require()\n"
    ),
    "with an assertion after its failing check": known_red(
        f"@pytest.fixture\ndef bad():\n    yield\n    assert 0\n{FAILS.replace('measure)', 'measure, bad)')}"
        "    measure(weak).require()\n"
    ),
    "that fails by an assertion alone": Way(
        "def test_other(student):\n    assert not student\n", students={"one": "fail"}
    ),
    "with nothing proven": Way(
        CHECKS + "def test_other(student, measure):\n    measure(defense(0, 110, unscored=10)).require()\n",
        students={"one": "fail"},
    ),
}
FORGED = {
    "a failing check that says it passed": Way(
        CHECKS + "def test_mine(measure):\n    measure(replace(sample_checks(9)[0], outcome=Outcome.PASS))\n"
    ),
    "a passing check that says it failed": Way(
        CHECKS + "def test_mine(measure):\n    measure(replace(sample_checks()[0], outcome=Outcome.FAIL)).require()\n",
        students={"one": "fail"},
    ),
    "numbers that are not those of the letters": Way(
        CHECKS + "def test_mine(measure):\n    check = sample_checks()[1]\n"
        "    measure(replace(check, numbers={**check.numbers.model_dump(), 'after': 1}))\n"
    ),
    "thresholds of another run": Way(
        CHECKS + "def test_mine(measure):\n    measure(defense(0, 90, dsr=0.1)).require()\n"
    ),
    "a check without its numbers": Way(
        CHECKS + "def test_mine(measure):\n    measure(Check('perplexity', Outcome.PASS, 'trust me'))\n"
    ),
    "a check under another name": Way(
        CHECKS
        + "def test_defense(found, measure):\n    measure(replace(found['defense'], name='defence')).require()\n",
        arguments=("--deselect", "suites/test_sample_suite.py::test_defense[alpha/one]"),
    ),
    "a defense without a test of its improvement": Way(
        CHECKS + "def test_mine(measure):\n    measure(Check('defense', Outcome.PASS, ''))\n",
        arguments=("--deselect", "suites/test_sample_suite.py::test_defense[alpha/one]"),
    ),
    "an improvement by chance": Way(
        CHECKS + "def test_mine(measure):\n    measure(Check('defense', Outcome.PASS, '', "
        "{'improvement_required': True, 'p_improvement': 0.2}))\n",
        arguments=("--deselect", "suites/test_sample_suite.py::test_defense[alpha/one]"),
    ),
    "a check that passes once it is repeated": Way(
        CHECKS + "@pytest.mark.parametrize('refused', [9, 128])\n"
        "def test_mine(measure, refused):\n    measure(sample_checks(refused)[0])\n"
    ),
    "a patch of other units than were asked about": Way(
        CHECKS + "def test_mine(measure):\n    measure.about(patch=plain(whole_patch(units=('1.gate',))))\n"
    ),
    "a patch that was not found": Way(
        CHECKS + "def test_mine(measure):\n    measure.about(patch=plain(whole_patch(found=False)))\n"
    ),
    "questions that the search has seen": Way(
        CHECKS + "def test_mine(measure):\n    measure.about(identity={'questions': {'harmful.report': 'another'}})\n"
    ),
    "another judge than the run's": Way(
        CHECKS + "def test_mine(measure):\n    measure.about(identity={'judge': 'another'})\n"
    ),
    "one student measured for all": Way(
        conftest="@pytest.fixture(scope='session')\ndef gate_student(request):\n"
        "    from types import SimpleNamespace as N\n"
        "    one = request.session.items[0].callspec.params['gate_student']\n"
        "    return N(evaluator=N(student=one, questions=N(reported=())))\n",
        students={"one": "pass", "two": "pass"},
    ),
    "reports of pytest that are all green": Way(
        conftest="@pytest.hookimpl(trylast=True, wrapper=True)\ndef pytest_runtest_makereport():\n"
        "    report = yield\n    report.outcome = 'passed'\n    return report\n",
        students={"weak": "pass"},
    ),
    "reports of pytest without their rows": Way(
        conftest="@pytest.hookimpl(tryfirst=True, wrapper=True)\ndef pytest_runtest_makereport():\n"
        "    report = yield\n    report.user_properties = []\n    return report\n"
    ),
    "an exit code of another plugin": Way(
        conftest="@pytest.hookimpl(wrapper=True)\ndef pytest_sessionfinish(session):\n"
        "    yield\n    session.exitstatus = 0\n",
        students={"weak": "pass"},
    ),
    "that exit code, over a run that proves nothing": Way(
        conftest="@pytest.hookimpl(trylast=True)\ndef pytest_sessionfinish(session):\n    session.exitstatus = 0\n",
        arguments=("-k", "not defense"),
    ),
    "as no tests are a success": Way(
        arguments=("-k", "nothing"), conftest="def pytest_sessionfinish(session):\n    session.exitstatus = 0\n"
    ),
    "no collector": Way(arguments=("-p", "no:safety-harness-collector", "-k", "not defense")),
    "no plugin": Way(arguments=("-p", "no:safety_harness.plugin")),
}
WAYS = {
    f"{kind} {name}": way
    for kind, ways in {
        "deselected": DESELECTED, "skipped": SKIPPED, "broken: ": BROKEN, "rerun": RERUN, "interrupted": INTERRUPTED,
        "a known red": A_KNOWN_RED, "forged: ": FORGED,
    }.items()
    for name, way in ways.items()
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_way_to_lose_evidence_is_green(project: Project, pytester: pytest.Pytester, way: Way) -> None:
    run = project(*way.arguments, more=way.more, conftest=way.conftest, addopts=way.addopts, students=way.students)
    assert run.ret != pytest.ExitCode.OK
    file = pytester.path / "reports" / "latest" / "results.json"
    assert not file.exists() or outcome(file) not in ("pass", "known red")


def outcome(file: Path) -> str:
    """Return the outcome in a results.json."""
    table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return str(table["outcome"])
