"""Run ``safety-harness plan``: what gating students needs, on one device and on a fleet."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from safety_harness.cli.common import Commands, Parser, add_choice, add_json, chosen, command, one_of, show, whole
from safety_harness.registry.load import Student

if TYPE_CHECKING:
    from safety_harness.evaluation.devices import Known
    from safety_harness.evaluation.estimate import Device, Need, Sketch
    from safety_harness.evaluation.fleet import Fleet, Work

HERE = "here"


def add_plan(commands: Commands[Parser]) -> None:
    """Add the command ``plan``."""
    planned = command(
        commands,
        "plan",
        "estimate disk, memory, probes and time without loading anything",
        examples=[
            "--registry mine.toml",
            "--gpus 8 --nodes 2",
            "--student tiny-llama/arithmetic --students 200 --gpus 64 --device core",
            "--family tiny --tflops 1 --bandwidth 20",
        ],
        more="With --gpus, --nodes, --students or --ahead it says what a fleet takes: waves, time, device-hours, "
        "gigabytes to read, and where it stops scaling.",
    )
    planned.set_defaults(run=_plan)
    from safety_harness.evaluation.devices import DEVICES

    planned.add_argument(
        "--device", choices=[*DEVICES, HERE], default="h200", help="what computes (default: h200); here: measure it"
    )
    planned.add_argument("--tflops", type=_positive, help="large matrix products of the device in TFLOP/s")
    planned.add_argument("--bandwidth", type=_positive, help="copies in the device's memory in GB/s")
    planned.add_argument(
        "--gpus", type=whole, metavar="N", help="GPUs of a node; its cores where the device is no GPU (default: 1)"
    )
    planned.add_argument("--nodes", type=whole, metavar="M", help="machines (default: 1)")
    planned.add_argument("--students", type=whole, metavar="S", help="plan for S students like the one that is chosen")
    planned.add_argument("--ahead", type=whole, metavar="K", help="GPUs of one search, as --gate-ahead (default: 1)")
    planned.add_argument("--disk", type=_positive, default=3.0, help="what a node's disk reads in GB/s (default: 3)")
    add_choice(planned)
    add_json(planned)


def _positive(text: str) -> float:
    """Return the number that *text* says. Raises ArgumentTypeError unless it is finite and positive."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return number


def _plan(options: argparse.Namespace) -> int:
    """Print a table of what each student would need, and what a fleet takes for all of them."""
    from safety_harness.evaluation.estimate import plan, sketched

    known, device = _device(options)
    students = chosen(options)
    looked_at = [(student, sketched(student)) for student in students if student.patchable]
    needs = [plan(student, device, sketches) for student, sketches in looked_at]
    why = {s.id: f"served by {s.spec.served}" if s.spec.served else "gated as it is; no teacher" for s in students}
    unplanned = [f"{s.id}: {why[s.id]}, so no search to plan" for s in students if not s.patchable]
    rates = f"{device.flops / 1e12:.3g} TFLOP/s and {device.bandwidth / 1e9:.3g} GB/s"
    sums = f"For {known.name}: {rates} ({known.source}). The sums: safety_harness/evaluation/estimate.py"
    lines = [*([table(needs), sums] if needs else []), *unplanned]
    facts: Any = list(map(asdict, needs))
    if needs and _of_fleet(options):
        if options.students:
            one_of([student for student, _ in looked_at])
        works = _works(looked_at, needs, device, options.students or 1)
        fleet = _fleet(options)
        facts = {"students": facts, "fleet": fleet_facts(works, fleet)}
        lines += fleet_lines(works, fleet, known)
    show(options, facts, "\n".join(lines))
    return 0


def _of_fleet(options: argparse.Namespace) -> bool:
    """Return whether the command line is about more than one device."""
    return bool(options.gpus or options.nodes or options.students or options.ahead)


def _device(options: argparse.Namespace) -> tuple[Known, Device]:
    """Return what computes, and its rates: those that the options name, or else those of the device."""
    from safety_harness.evaluation.devices import DEVICES, Known

    if options.device == HERE:
        from safety_harness.evaluation.machine import measure

        machine = measure()
        memory = (machine.gpu_memory or machine.memory) / 1e9
        name, device = machine.gpu or f"this machine's {machine.cores} cores", machine.device
        if _of_fleet(options) and not machine.gpu:
            # It was measured with a thread on each.
            name = f"a core of this machine's {machine.cores}"
            device = replace(device, flops=device.flops / machine.cores, bandwidth=device.bandwidth / machine.cores)
        known = Known(name, 0, 0, memory, "measured now")
    else:
        known = DEVICES[options.device]
        device = known.device
    if options.tflops or options.bandwidth:
        known = replace(known, name="a device", source="as given")
    return known, replace(
        device,
        flops=options.tflops * 1e12 if options.tflops else device.flops,
        bandwidth=options.bandwidth * 1e9 if options.bandwidth else device.bandwidth,
    )


def table(needs: Sequence[Need]) -> str:
    """Return a row a student: what its search needs."""
    rows = [
        (
            need.student,
            f"{need.parameters / 1e6:,.1f}",
            f"{need.movable / need.parameters:.0%}",
            f"{need.download / 2**30:.1f}",
            f"{need.memory / 2**30:.1f}",
            "–".join(map(str, need.probes)),
            "–".join(f"{seconds / 60:.1f}" for seconds in need.seconds),
        )
        for need in needs
    ]
    headers = ("student", "M parameters", "may move", "download GiB", "memory GiB", "probes", "minutes")
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 6))


def _works(
    looked_at: Sequence[tuple[Student, Sequence[Sketch]]], needs: Sequence[Need], device: Device, copies: int
) -> list[Work]:
    """Return what gating each student takes, so many times."""
    from safety_harness.evaluation.fleet import work

    works = [
        work(student, sketches, need.memory, device) for (student, sketches), need in zip(looked_at, needs, strict=True)
    ]
    return works * copies


def _fleet(options: argparse.Namespace) -> Fleet:
    from safety_harness.evaluation.fleet import Fleet

    ahead = options.ahead or 1
    return Fleet(options.gpus or ahead, options.nodes or 1, ahead, options.disk * 1e9)


def fleet_facts(works: Sequence[Work], fleet: Fleet) -> dict[str, Any]:
    """Return what *fleet* takes for *works*, and what the student that takes longest consists of."""
    from safety_harness.evaluation.fleet import most_useful, outlay

    longest = max(works, key=lambda one: sum(one.parts.values()))
    facts = {"students": len(works), **asdict(fleet), **asdict(outlay(works, fleet))}
    return {**facts, "most_useful": most_useful(works, fleet), "longest": longest.student, "parts": dict(longest.parts)}


def fleet_lines(works: Sequence[Work], fleet: Fleet, known: Known) -> list[str]:
    """Return in words what *fleet* takes for *works*, with a table of what the longest student consists of."""
    facts = fleet_facts(works, fleet)
    all_parts = sum(facts["parts"].values())
    rows = [(name, f"{taken:.1f}", f"{taken / all_parts:.0%}") for name, taken in facts["parts"].items()]
    parts = tabulate(
        rows, (facts["longest"], "seconds", "share"), disable_numparse=True, colalign=("left", "right", "right")
    )
    searched = facts["parts"]["search"] / all_parts
    lines = [
        "",
        parts,
        "",
        f"{len(works)} student(s) on {fleet.nodes} node(s) of {fleet.devices} device(s), {fleet.ahead} a search: "
        f"{facts['waves']} wave(s), {facts['seconds'] / 60:.1f} minutes, {facts['device_hours']:.2f} device-hours held "
        f"({facts['used']} used), {facts['read'] / 1e9:,.0f} GB to read.",
        f"It stops scaling at {facts['most_useful']} device(s): {_why(works, fleet, facts['most_useful'])} Only the "
        f"search, {searched:.0%} of a student, gets shorter by --gate-ahead.",
    ]
    largest = max(works, key=lambda one: one.memory)
    if known.memory and largest.memory > known.memory * 1e9:
        lines.append(
            f"{largest.student} needs {largest.memory / 2**30:.2g} GiB; {known.name}: "
            f"{known.memory * 1e9 / 2**30:.2g} GiB. Give it several GPUs (docs/scale.md)."
        )
    return lines


def _why(works: Sequence[Work], fleet: Fleet, most_useful: int) -> str:
    """Return why more devices are of no use."""
    if most_useful >= len(works) * fleet.ahead:
        return "each student has its own then."
    return "the longest student takes as long as all the others."


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
