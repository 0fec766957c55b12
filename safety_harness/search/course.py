"""Keep the probes of one search in their order, and publish how far the search is."""

from __future__ import annotations

from collections.abc import Sequence

from safety_harness import ddmin
from safety_harness.errors import VoidProbe
from safety_harness.evaluation.oracle import Oracle, Probe
from safety_harness.gate.records import Budgets
from safety_harness.progress import Progress, publish
from safety_harness.search.ahead import Probers
from safety_harness.weights.units import Group, Unit, flat


class Course:
    """Ask an oracle on behalf of one search."""

    def __init__(self, oracle: Oracle, student: str) -> None:
        self._oracle = oracle
        self._student = student
        self._event: ddmin.Event | None = None
        self.probers: Probers | None = None
        """Processes that answer for the oracle while delta debugging asks, if there are several."""
        # Probes whose turn has not come: some are made ahead.
        self._early: dict[tuple[Group, ...], Probe] = {}
        self.probes: list[Probe] = []
        """The probes that were not void."""
        self.begun = 0
        """How many probes were begun, void ones included."""

    def probe(self, units: Sequence[Unit], budgets: Budgets) -> Probe:
        """Ask the oracle whether *units* keep *budgets*.

        Raises:
            VoidProbe: more answers are unscored than the settings allow.
        """
        self.begun += 1
        probe = self._oracle.probe(units, budgets)
        self.probes.append(probe)
        self._publish()
        return probe

    def accepts(self, groups: tuple[Group, ...], budgets: Budgets) -> bool:
        """Return whether *groups* keep *budgets*, as delta debugging asks it: a void probe is unresolved, never false.

        The probe counts once delta debugging uses its answer. Any thread may ask.

        Raises:
            Unresolved: the probe is void.
        """
        try:
            probe = (self.probers or self._oracle).probe(flat(groups), budgets)
        except VoidProbe as error:
            raise ddmin.Unresolved(str(error)) from error
        self._early[groups] = probe
        return probe.accepted

    def on_event(self, event: ddmin.Event) -> None:
        """Count an answer that delta debugging uses, and publish its state."""
        self._event = event
        if event.kind == "answered":
            self.begun += 1
            if event.units in self._early:  # it is not if the probe was void
                self.probes.append(self._early.pop(event.units))
        self._publish()

    def _publish(self) -> None:
        """Publish probes, refusals and the time that is left."""
        event, probes = self._event, self.probes
        # The first probe moves nothing, and its answers were there before the search.
        seconds = [probe.seconds for probe in probes[1:]]
        accepted = [probe for probe in probes if probe.accepted]
        at_once = self.probers.at_once() if self.probers else 1
        publish(
            Progress(
                student=self._student,
                phase="searching a start" if event is None else event.phase,
                size=event.size if event else None,
                probes=len(probes),
                refused=accepted[-1].refused if accepted else max((probe.refused for probe in probes), default=0),
                asked=len(self._oracle.harmful),
                to_go=event.estimate if event else None,
                rest=event.estimate * sum(seconds) / len(seconds) / at_once if event and seconds else None,
            )
        )
