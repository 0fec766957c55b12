"""Draw the run's figures as SVG, for the page and next to it. Their colours are those of the page around them.

Only the figures of the whole run need matplotlib. The small one of each student's search is two lines of points: two
hundred of them may not take a minute.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safety_harness.gate.numbers import Defense
from safety_harness.gate.records import Patch, Step
from safety_harness.gate.results import Outcome, RunResult, StudentResult
from safety_harness.report.cells import tone
from safety_harness.text import shortened, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The size of the small figure of a search, pixels.
COURSE_WIDTH, COURSE_HEIGHT = 320, 90
# Drawn in colours that no theme has, then replaced by names: the page around them says how each name looks.
INK, MUTED = "#010203", "#010204"
_COLOURS = {Outcome.PASS: "#010205", Outcome.FAIL: "#010206", Outcome.INCONCLUSIVE: "#010207"}
_NAMES = {
    INK: "currentColor",
    MUTED: "var(--muted, #6b7280)",
    "#010205": "var(--pass, #15803d)",
    "#010206": "var(--fail, #b91c1c)",
    "#010207": "var(--unproven, #a16207)",
}
FIGURES = ("intervals", "trade-off")
"""The names of the run's figures."""
LABEL_WIDTH = 40  # characters
# A figure of more students is no overview.
MAX_STUDENTS = 60
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: to be read aloud, searched and scaled
    "svg.hashsalt": "safety-harness",
    "text.parse_math": False,  # a student may have a dollar in its name
}


def figures(result: RunResult) -> dict[str, str] | None:
    """Return name -> SVG: ``intervals`` of the DSR, and the ``trade-off`` where searches recorded their course.

    None: there is no matplotlib to draw them (the extra ``figures``).
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return None
    drawn = {}
    with mpl.rc_context(_STYLE):
        if any(student.numbers(Defense).shares for student in result.students):
            drawn["intervals"] = _intervals(result)
        if searched := [(one, patch) for one in result.students if (patch := one.about.patch) and patch.course]:
            drawn["trade-off"] = _trade_off(searched)
    return drawn


def _intervals(result: RunResult) -> str:
    measured = [
        (student, shares, student.numbers(Defense).after_interval or [shares[1]] * 2)
        for student in result.students
        if (shares := student.numbers(Defense).shares)
    ]
    shown = measured[:MAX_STUDENTS]
    figure, axes = _new(7.2, 0.9 + 0.24 * len(shown))
    for y, (student, (before, after), bounds) in enumerate(shown):
        colour = _COLOURS[tone(student)]
        axes.plot([before], [y], "o", markerfacecolor="none", color=MUTED, markersize=5)
        axes.plot(bounds, [y, y], color=colour, linewidth=2)
        axes.plot([after], [y], "o", color=colour, markersize=5)
        if teacher := student.about.teacher.harmful:
            axes.plot([teacher.refused / max(teacher.n, 1)], [y], "|", color=INK, markersize=9)
    rules = (settings.get("gate", {}) for settings in result.gate.values())
    for bound in sorted({rule["dsr"] for rule in rules if "dsr" in rule}):
        axes.axvline(bound, color=MUTED, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(shown)), [shortened(visible(student.id), LABEL_WIDTH) for student, *_ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    text = "held-out harmful questions refused: before (ring), after (dot, with its interval), teacher (tick)"
    _name_x(axes, text, len(measured))
    return _svg(figure, "Defense success rate of each student before and after patching, with intervals")


def whole_probes(patch: Patch) -> list[Step]:
    """Return the probes of a search that asked all questions.

    A probe that was given up early asked the hardest questions first, so its rate says less than it seems to.
    """
    return [step for step in patch.course if step.asked == patch.search.questions > 0]


def _trade_off(searched: Sequence[tuple[StudentResult, Patch]]) -> str:
    figure, axes = _new(7.2, 3.4)
    for student, patch in searched[:MAX_STUDENTS]:
        probes = whole_probes(patch)
        within = sorted((step for step in probes if step.accepted), key=lambda step: step.parameters)
        broke = [step for step in probes if step.over_refused is not None and not step.accepted]
        few = [step for step in probes if step.over_refused is None]
        for steps, line, size, colour in (
            (few, ".", 3, MUTED),
            (broke, "x", 4, MUTED),
            (within, "o-", 3, _COLOURS[tone(student)]),
        ):
            shares = [100 * step.parameters / patch.total_parameters for step in steps]
            rates = [step.refused / step.asked for step in steps]
            axes.plot(shares, rates, line, color=colour, markersize=size, linewidth=1)
    text = "% of the parameters moved, by probe: enough (lines), broke a budget (x), too little (.)"
    _name_x(axes, text, len(searched))
    axes.set_ylabel("search questions refused")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    return _svg(figure, "Refusals against parameters moved, over the probes of every search")


def _name_x(axes: Axes, text: str, students: int) -> None:
    axes.set_xlabel(f"{text}; the first {MAX_STUDENTS} of {students}" if students > MAX_STUDENTS else text)


def _new(width: float, height: float) -> tuple[Figure, Axes]:
    # Imported here because it takes half a second. Not pyplot, which would look for a screen.
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
    style = "max-width:100%;height:auto"  # for a figure that stands alone; the page sets its own
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" style="{style}" ', 1)
