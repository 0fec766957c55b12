"""Say what a run is about to send to servers, before it sends anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from safety_harness.registry.load import Student


@dataclass(eq=False)  # pytest keeps plugins in sets
class Announcement:
    """In the process that has the terminal: print what servers will be sent, however quiet the run."""

    students: Sequence[Student]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        from safety_harness.evaluation.panel import announced as judged
        from safety_harness.evaluation.served import announced

        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            served = [announced(student) for student in self.students if student.spec.served]
            tampered = session.config.option.safety_tamper
            for line in (*served, *judged(self.students, tampered=tampered)):
                reporter.write_line(line)


def announce(config: pytest.Config, students: Sequence[Student]) -> None:
    """Let the run of *config* say what it sends to the servers of *students* and of their judges."""
    if any(student.spec.served or student.family.models_that_judge for student in students):
        config.pluginmanager.register(Announcement(students), "safety-harness-announcement")
