"""Check the folders of runs: each run has its own, and ``latest`` is the one that began last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from safety_harness.errors import HarnessError
from safety_harness.gate import runs


def write(folder: Path, text: str, *, finish: bool = True) -> Path:
    """Run from begin to end, or to its middle: results.json holds *text*."""
    run = runs.begin(folder)
    (run / "results.json").write_text(text)
    (run / "report.html").write_text(text)
    runs.show(run)
    if finish:
        runs.finish(run)
    return run


def latest(folder: Path) -> str:
    return (folder / "latest" / "results.json").read_text()


@pytest.fixture(params=["links", "no links"])
def reports(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is not there yet, where links are possible and where they are not."""
    if request.param == "no links":

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "symlink_to", refuse)
    return tmp_path / "new" / "reports"


def test_each_run_has_a_folder_and_latest_is_the_last(reports: Path) -> None:
    """Begin many runs within a second: their names sort as they began, and none is written over."""
    made = [write(reports, str(number)) for number in range(30)]
    assert made == sorted(set(made))
    assert [(run / "results.json").read_text() for run in made] == [str(number) for number in range(30)]
    assert latest(reports) == "29"
    assert {path.name for path in reports.iterdir()} == {"latest", *(run.name for run in made)}


def test_two_runs_of_one_moment_do_not_collide(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give five runs the same time of day: each waits for a moment that is its own."""
    times = iter(["20260101-000000-000000"] * 3 + ["20260101-000000-000001"] * 2 + ["20260101-000000-000002"])

    class Clock:
        def __init__(self, _: object) -> None: ...
        def strftime(self, _: str) -> str:
            return next(times)

        now = classmethod(lambda cls, zone: cls(zone))

    monkeypatch.setattr(runs, "datetime", Clock)
    assert [runs.begin(reports).name[-1] for _ in range(3)] == ["0", "1", "2"]


def test_a_run_that_died_is_the_latest(reports: Path) -> None:
    """Expect nothing of the run before it: neither its verdict nor its page."""
    passed = write(reports, "pass")
    died = runs.begin(reports)
    (died / "results.json").write_text("inconclusive")
    runs.show(died)
    assert latest(reports) == "inconclusive"
    assert not (reports / "latest" / "report.html").exists()
    assert (passed / "results.json").read_text() == "pass"


def test_a_run_that_ends_late_is_not_shown_as_the_latest(tmp_path: Path) -> None:
    slow = write(tmp_path, "slow", finish=False)
    write(tmp_path, "quick")
    runs.finish(slow)
    assert latest(tmp_path) == "quick"


def test_patches_of_the_latest_are_of_a_run_that_is_finished(reports: Path) -> None:
    """Ask for ``latest`` after a run, while another one writes, and after that one is finished."""
    asked = reports / "latest" / "results.json"
    assert runs.finished(asked) == asked
    one = write(reports, "one")
    assert runs.finished(asked) == one / "results.json"
    two = write(reports, "two", finish=False)
    assert runs.finished(asked) == one / "results.json"
    assert runs.finished(two / "results.json") == two / "results.json"
    runs.finish(two)
    assert runs.finished(asked) == two / "results.json"


def test_a_first_run_that_is_not_finished_has_no_patches(reports: Path) -> None:
    write(reports, "first", finish=False)
    asked = reports / "latest" / "results.json"
    assert runs.finished(asked) == asked


@pytest.mark.parametrize("copied", [True, False])
def test_a_latest_that_is_no_link_is_replaced(tmp_path: Path, copied: bool) -> None:
    """Find a folder, as a download or a copy leaves it, or nothing, as somebody who cleans up does."""
    write(tmp_path, "one")
    (tmp_path / "latest").unlink()
    if copied:
        (tmp_path / "latest").mkdir()
        for name in ("results.json", "report.html", "trade-off.svg"):
            (tmp_path / "latest" / name).write_text("old")
    run = write(tmp_path, "two")
    assert latest(tmp_path) == "two"
    assert {path.name for path in (tmp_path / "latest").iterdir()} == {"results.json", "report.html"}
    (tmp_path / "latest").unlink() if not copied else None
    runs.finish(run)
    assert latest(tmp_path) == "two"


def test_a_folder_of_runs_can_be_moved(tmp_path: Path) -> None:
    write(tmp_path / "here", "one")
    (tmp_path / "here").rename(tmp_path / "there")
    assert latest(tmp_path / "there") == "one"


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HarnessError, match=r"file.*cannot be written .*--gate-report-dir"):
        runs.begin(tmp_path / place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(HarnessError, match="Permission denied"):
        runs.begin(tmp_path / "reports")
