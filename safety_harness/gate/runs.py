"""Keep the reports of each run in a folder of its own, and ``latest`` beside them pointing to the newest.

``latest`` shows a run from its begin, as one that proves nothing yet: whoever looks there never takes the verdict of an
earlier run for this one's, even if it dies. What is finished stays where it is, and nothing is written over it.
"""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path

from safety_harness.files import explain_disk_errors, staging, write_set
from safety_harness.gate.results import RESULTS

LATEST = "latest"
UNFINISHED = "unfinished"
"""The file that the folder of a run holds until it is finished."""
# When the run began, in UTC and to the microsecond: a name that sorts, and that no two runs have.
_TIME = "%Y%m%d-%H%M%S-%f"
_NAME = re.compile(r"\d{8}-\d{6}-\d{6}")


def begin(folder: Path) -> Path:
    """Return a new folder in *folder*, for a run that begins.

    Raises:
        HarnessError: nothing can be written there.
    """
    with explain_disk_errors(folder / LATEST):
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            run = folder / datetime.now(UTC).strftime(_TIME)
            with contextlib.suppress(FileExistsError):
                run.mkdir()
                (run / UNFINISHED).touch()
                return run


def show(run: Path) -> None:
    """Let ``latest`` show *run*: by a link, or where there can be none, by a copy.

    Raises:
        HarnessError: neither can be written.
    """
    latest = run.parent / LATEST
    with explain_disk_errors(latest):
        try:
            with staging(latest) as stage:
                (stage / "new").symlink_to(run.name, target_is_directory=True)
                (stage / "new").replace(latest)
        except OSError:  # a file system or a user without links, or a folder that was downloaded or copied
            files = {file.name: file.read_text(encoding="utf-8") for file in sorted(run.iterdir()) if file.is_file()}
            old = [file.name for file in latest.iterdir()] if latest.exists() else []
            write_set(latest, {**files, RESULTS: files.pop(RESULTS)}, old)


def finish(run: Path) -> None:
    """Note that *run* is finished. A run that began after it stays the latest.

    Raises:
        HarnessError: it cannot be written.
    """
    with explain_disk_errors(run):
        (run / UNFINISHED).unlink(missing_ok=True)
    if not (run.parent / LATEST).is_symlink():  # a copy, or whoever cleared the folder took it away
        show(run)


def finished(results: Path) -> Path:
    """Return where *results* will stay: of ``latest``, the file of its run, or of the last run that is finished.

    So the patches of the last run can be used while another one writes, and after another one died.
    """
    latest = results.parent
    if latest.name != LATEST:
        return results
    if latest.is_symlink() and not (latest / UNFINISHED).exists():
        return results.resolve()
    runs = (run for run in latest.parent.glob("*") if _NAME.fullmatch(run.name) and not (run / UNFINISHED).exists())
    return max((file for run in runs if (file := run / results.name).exists()), default=results)
