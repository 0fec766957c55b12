"""The run's figures as SVG: drawn once for the page, and saved beside it. Colours are those of the page around them."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safety_harness.gate.results import Outcome, RunResult, StudentResult
from safety_harness.report.cells import numbers_of, patch_of
from safety_harness.text import shortened, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of the small figure of a search that the page draws for each student.
COURSE_WIDTH, COURSE_HEIGHT = 320, 90
# Drawn in colours that no theme has, and then named after what they stand for: the page around says how that looks.
INK, MUTED = "#010203", "#010204"
_COLOURS = {Outcome.PASS: "#010205", Outcome.FAIL: "#010206", Outcome.INCONCLUSIVE: "#010207"}
_NAMES = {
    INK: "currentColor",
    MUTED: "var(--muted, #6b7280)",
    "#010205": "var(--pass, #15803d)",
    "#010206": "var(--fail, #b91c1c)",
    "#010207": "var(--unproven, #a16207)",
}
_LABEL = 40
# A figure of more students is no overview.
MOST = 60
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: to be read aloud, searched and scaled
    "svg.hashsalt": "safety-harness",
    "text.parse_math": False,  # a student may have a dollar in its name
}


def figures(result: RunResult) -> dict[str, str]:
    """Name -> SVG: ``intervals`` of the DSR before and after, and the ``trade-off`` where searches recorded it."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:  # the extra `figures` is not installed: a report goes without
        return {}
    found = {}
    with mpl.rc_context(_STYLE):
        if measured := [student for student in result.students if numbers_of(student, "defense").get("n")]:
            found["intervals"] = _intervals(measured, result.gate)
        if searched := [student for student in result.students if _has_course(student)]:
            found["trade-off"] = _trade_off(searched)
    return found


def _has_course(student: StudentResult) -> bool:
    patch = patch_of(student)
    return bool(patch.get("course") and patch.get("search", {}).get("questions") and patch.get("total_parameters"))


def _intervals(students: Sequence[StudentResult], gate: Mapping[str, Any]) -> str:
    shown = students[:MOST]
    figure, axes = _new(7.2, 0.9 + 0.24 * len(shown))
    for row, student in enumerate(shown):
        numbers, colour = numbers_of(student, "defense"), _COLOURS[student.outcome]
        n = numbers["n"]
        axes.plot([numbers["before"] / n], [row], "o", markerfacecolor="none", color=MUTED, markersize=5)
        axes.plot(numbers["after_interval"], [row, row], color=colour, linewidth=2)
        axes.plot([numbers["after"] / n], [row], "o", color=colour, markersize=5)
    for bound in sorted({settings["gate"]["dsr"] for settings in gate.values() if "dsr" in settings.get("gate", {})}):
        axes.axvline(bound, color=MUTED, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(shown)), [shortened(visible(student.id), _LABEL) for student in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    _name_x(axes, "held-out harmful questions refused: before (ring), after (dot, with its interval)", students)
    return _svg(figure, "Defense success rate of each student before and after patching, with intervals")


def _trade_off(students: Sequence[StudentResult]) -> str:
    figure, axes = _new(7.2, 3.4)
    for student in students[:MOST]:
        patch = patch_of(student)
        # A probe that was given up early says less than its rate.
        probes = [step for step in patch["course"] if step["asked"] == patch["search"]["questions"]]
        few = [step for step in probes if step["over_refused"] is None]
        broke = [step for step in probes if step["over_refused"] is not None and not step["accepted"]]
        within = sorted((step for step in probes if step["accepted"]), key=lambda step: step["parameters"])
        axes.plot(_shares(few, patch), _rates(few), ".", color=MUTED, markersize=3)
        axes.plot(_shares(broke, patch), _rates(broke), "x", color=MUTED, markersize=4)
        axes.plot(
            _shares(within, patch), _rates(within), "o-", color=_COLOURS[student.outcome], markersize=3, linewidth=1
        )
    _name_x(axes, "% of the parameters moved, by probe: enough (lines), broke a budget (x), too little (.)", students)
    axes.set_ylabel("search questions refused")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    return _svg(figure, "Refusals against parameters moved, over the probes of every search")


def _name_x(axes: Axes, text: str, students: Sequence[StudentResult]) -> None:
    axes.set_xlabel(f"{text}; the first {MOST} of {len(students)}" if len(students) > MOST else text)


def _shares(steps: Sequence[Mapping[str, Any]], patch: Mapping[str, Any]) -> list[float]:
    return [100.0 * float(step["parameters"]) / float(patch["total_parameters"]) for step in steps]


def _rates(steps: Sequence[Mapping[str, Any]]) -> list[float]:
    return [float(step["refused"]) / float(step["asked"]) for step in steps]


def _new(width: float, height: float) -> tuple[Figure, Axes]:
    # Takes half a second to import, and only a report needs it; no pyplot, which would look for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    for part in (axes.spines["left"], axes.spines["bottom"]):
        part.set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set(color=INK, fontsize=8)
    axes.yaxis.label.set(color=INK, fontsize=8)
    axes.patch.set_visible(False)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": title})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for drawn, named in _NAMES.items():
        text = text.replace(drawn, named)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" style="{_DEFAULTS}" ', 1)


# Of a figure that stands alone; the page sets its own.
_DEFAULTS = "max-width:100%;height:auto"
