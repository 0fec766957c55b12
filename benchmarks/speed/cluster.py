"""Measure runs over a Ray cluster of this machine: nodes that die, what Ray itself costs, and many students.

    python -m benchmarks.speed.cluster kills [--family tiny]        17 students, 2 nodes, one killed, one process killed
    python -m benchmarks.speed.cluster overhead [--student json …]  processor seconds against `-n 2`
    python -m benchmarks.speed.cluster many [--students 200] [--nodes 8] [--seconds 20]

Each part writes its row of ``benchmarks/speed/cluster.jsonl``, and from all rows ``benchmarks/speed/cluster.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from tabulate import tabulate

from benchmarks.kept import Row, add, read
from tests.plugin.conftest import RUN, write_project
from tests.ray_cluster import LocalCluster, Node

ROOT = Path(__file__).parents[2]
ROWS, PAGE = (Path(__file__).with_suffix(kind) for kind in (".jsonl", ".md"))
SECONDS_BETWEEN_SAMPLES = 0.2
SLEEPS = "import time\ndef test_takes_seconds(student):\n    time.sleep({seconds})\n"


@dataclass
class Cost:
    """What the processes of a run have used: processor seconds by process, and the peak memory of the first one."""

    seconds: dict[tuple[int, float], float] = field(default_factory=dict)
    peak: int = 0

    def sample(self, roots: Sequence[psutil.Process]) -> None:
        """Look at *roots* and all that descend from them."""
        for root in roots:
            with contextlib.suppress(psutil.Error):
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        times = process.cpu_times()
                        self.seconds[process.pid, process.create_time()] = times.user + times.system

    @property
    def total(self) -> float:
        """Processor seconds of all processes."""
        return sum(self.seconds.values())


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    nodes: Sequence[Node] = (),
    watch: Any = lambda: None,
    folder: Path = ROOT,
) -> tuple[int, float, Cost]:
    """Run pytest. Return its exit code, its seconds and what it and *nodes* used; *watch* is called all the while."""
    before, cost, began = Cost(), Cost(), time.monotonic()
    before.sample([node.process for node in nodes])
    with tempfile.TemporaryFile("w+") as log:
        process = psutil.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments],
            cwd=folder, env={**environment, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log,
        )  # fmt: skip
        while process.poll() is None:
            watch()
            cost.sample([process, *(node.process for node in nodes)])
            with contextlib.suppress(OSError):
                peak = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
                cost.peak = max(cost.peak, int(peak[1]) if peak else 0)
            time.sleep(SECONDS_BETWEEN_SAMPLES)
        log.seek(0)
        print(log.read()[-3000:], flush=True)
    for key, seconds in before.seconds.items():
        cost.seconds[key] = cost.seconds.get(key, seconds) - seconds
    return process.returncode, time.monotonic() - began, cost


def results(reports: Path) -> dict[str, dict[str, Any]]:
    """Return the students of a results.json by their ids."""
    table = json.loads((reports / "latest" / "results.json").read_text(encoding="utf-8"))
    return {student["id"]: student for student in table["students"]}


@dataclass
class Killer:
    """Kills the first node that has a search half done, and then a process of the other node in another search."""

    cache: Path
    nodes: Sequence[Node]
    answers: int
    """How many a journal holds before its search is killed."""
    journalled: dict[str, int] = field(default_factory=dict)
    """Key of a search -> answers in its journal when it was killed."""

    def __call__(self) -> None:
        if len(self.journalled) == 2:
            return
        begun = {key: count for key, count in _answers(self.cache).items() if count >= self.answers}
        for key in begun.keys() - self.journalled.keys():
            if (process := _holder(key, self.nodes)) is None:
                continue
            node = next(one for one in self.nodes if process in one.workers())
            process.suspend()  # the count holds until it is dead
            self.journalled[key] = _answers(self.cache)[key]
            print(f"killed in the search {key}, with {self.journalled[key]} answers, on {node.host}", flush=True)
            if len(self.journalled) == 1:
                node.kill()
            else:
                process.kill()
            return


def _answers(cache: Path) -> dict[str, int]:
    """Return how many answers the journals in *cache* hold, by the key of their search."""
    counts: dict[str, int] = {}
    for journal in (cache / "patches").glob("*.journal"):
        with contextlib.suppress(OSError):
            key = journal.name.partition(".")[0]
            counts[key] = counts.get(key, 0) + max(0, len(journal.read_bytes().splitlines()) - 1)
    return counts


def _holder(key: str, nodes: Sequence[Node]) -> psutil.Process | None:
    """Return the process that has a journal of the search *key* open."""
    for process in (worker for node in nodes for worker in node.workers()):
        with contextlib.suppress(psutil.Error):
            if any(Path(file.path).name.startswith(f"{key}.") for file in process.open_files()):
                return process
    return None


def kills(options: argparse.Namespace) -> Row:
    """Gate a family here, and over two nodes of which one is killed, and of the other a process."""
    with tempfile.TemporaryDirectory() as place, LocalCluster(fast=False) as cluster:
        folder, chosen = Path(place), _chosen(options)
        caches = {name: {"SAFETY_HARNESS_CACHE": str(folder / name)} for name in ("local", "ray")}
        here = {**cluster.environment(), **caches["local"]}
        code, seconds, _ = run([*chosen, "-n", "2", "--gate-report-dir", str(folder / "a")], here)
        cluster.add(cpus=0)
        nodes = [cluster.add(variables=caches["ray"]) for _ in range(2)]
        killer = Killer(folder / "ray", nodes, options.answers)
        over = ["--gate-ray", cluster.address, "--gate-report-dir", str(folder / "b")]
        code_over, seconds_over, _ = run([*chosen, *over], {**here, **caches["ray"]}, nodes, killer)
        local, ray = results(folder / "a"), results(folder / "b")
    patches = {student["about"]["patch"]["key"]: student["about"]["patch"] for student in ray.values()}
    again = sum(
        max(0, held - (patches[key]["probes"] - len(patches[key]["course"])))
        for key, held in killer.journalled.items()
    )  # fmt: skip
    return {
        "students": len(local),
        "same units": sum(
            ray[name]["about"]["patch"]["units"] == of["about"]["patch"]["units"] for name, of in local.items()
        ),
        "same checks": sum(ray[name]["checks"] == of["checks"] for name, of in local.items()),
        "exit code here": code,
        "exit code over Ray": code_over,
        "searches that were killed": len(killer.journalled),
        "answers in their journals": sum(killer.journalled.values()),
        "of these asked again": again,
        "seconds here, -n 2": round(seconds),
        "seconds over Ray, two nodes of one core": round(seconds_over),
    }


def _chosen(options: argparse.Namespace) -> list[str]:
    """Return the arguments of pytest that say what is gated."""
    registry = ["--gate-registry", options.registry] if options.registry else []
    students = [argument for student in options.student for argument in ("--gate-student", student)]
    return ["suites", *registry, "--gate-family", options.family, *students]


def _units(student: Mapping[str, Any]) -> Any:
    return student["about"]["patch"]["units"]


def overhead(options: argparse.Namespace) -> Row:
    """Compare the processor seconds of a run over one node of two cores with those of two workers of xdist."""
    used = {}
    with tempfile.TemporaryDirectory() as place, LocalCluster() as cluster:
        chosen = [
            "suites",
            "--gate-family",
            options.family,
            "--gate-threads",
            "1",
            "--gate-report-dir",
            f"{place}/reports",
        ]
        chosen += [argument for student in options.student for argument in ("--gate-student", student)]
        node = cluster.add(cpus=2)
        for name, arguments in {"-n 2": ["-n", "2"], "ray": ["--gate-ray", cluster.address]}.items():
            here = {**cluster.environment(), "SAFETY_HARNESS_CACHE": f"{place}/{name}"}
            code, seconds, cost = run([*chosen, *arguments], here, [node])
            assert code == 0, f"{name} ended with {code}"
            used[name] = (cost.total, seconds, len(results(Path(place, "reports"))))
    return {
        "students": used["ray"][2],
        "processor seconds, -n 2": round(used["-n 2"][0]),
        "processor seconds over Ray": round(used["ray"][0]),
        "times as many": round(used["ray"][0] / used["-n 2"][0], 2),
        "seconds, -n 2": round(used["-n 2"][1]),
        "seconds over Ray": round(used["ray"][1]),
    }


def many(options: argparse.Namespace) -> Row:
    """Run a stub suite that sleeps, for many students on nodes of one core each."""
    with tempfile.TemporaryDirectory() as place, LocalCluster() as cluster:
        folder = Path(place)
        names = {f"s{number}": "pass" for number in range(options.students)}
        write_project(folder, students=names, more=SLEEPS.format(seconds=options.seconds))
        cluster.add(cpus=0)
        for _ in range(options.nodes):
            cluster.add()
        here = {**cluster.environment(), "SAFETY_HARNESS_CACHE": str(folder / "cache")}
        code, seconds, cost = run([*RUN, "--gate-ray", cluster.address], here, cluster.nodes, folder=folder)
    ideal = options.students * options.seconds / options.nodes
    return {
        "students": options.students,
        "nodes of one core": options.nodes,
        "seconds that a student sleeps": options.seconds,
        "exit code": code,
        "seconds at best": round(ideal),
        "seconds": round(seconds),
        "times as many": round(seconds / ideal, 2),
        "peak memory of the controller, MiB": round(cost.peak / 1024),
        "processor seconds of a student": round(cost.total / options.students, 2),
    }


PARTS = {"kills": kills, "overhead": overhead, "many": many}
ABOUT = {
    "kills": "A node is killed in a search, and later a process of the other node in another search:",
    "overhead": "The same students by two workers of xdist, and over one node of two cores:",
    "many": "A stub instead of models, on nodes that share this machine's cores:",
}


def page(rows: Sequence[Row]) -> str:
    """Return the page of the newest row of each part."""
    newest = {row["part"]: row for row in rows}
    text = f"# Runs over a Ray cluster\n\nAll nodes are on one machine of {os.cpu_count()} cores.\n"
    for part in (part for part in PARTS if part in newest):
        row = {name: value for name, value in newest[part].items() if name not in ("part", "made by")}
        made = f"`python -m benchmarks.speed.cluster {newest[part]['made by']}`"
        text += f"\n## `{part}`\n\n{made}. {ABOUT[part]}\n\n{tabulate(row.items(), ['', ''], tablefmt='github')}\n"
    return text


def main() -> None:
    """Measure one part, and write the page again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--registry")
    parser.add_argument("--family", default="tiny")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--answers", type=int, default=8, help="answers in a journal before its search is killed")
    parser.add_argument("--students", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--print", action="store_true", help="write no file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or its nodes would live on
    row = {"part": options.part, "made by": " ".join(sys.argv[1:]), **PARTS[options.part](options)}
    print(json.dumps(row, indent=1))
    if not options.print:
        add(ROWS, [row])
        PAGE.write_text(page(read(ROWS)), encoding="utf-8")


if __name__ == "__main__":
    main()
