"""Kill gated runs and searches of two small students at random moments, and check what the next run makes of it.

    python -m tests.kills --from 0 --to 100

Prints a line for each kill, and one that counts them. Exits with 1 if a next run ended otherwise than one that nothing
was killed before, asked a question that a journal holds, or left something behind.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from safety_harness.files import sha256_file

ROOT = Path(__file__).parents[1]
TINY = ROOT / "safety_harness" / "families" / "tiny"
STUDENTS = ("count", "zork")
# What is killed: a run in one process, one of two workers, the controller of two workers, a search.
KINDS = ("run", "worker", "controller", "search")
# Every run must have ended by then, however busy the machine is.
PATIENCE_S = 900
# Workers notice that their controller is gone when they next report.
ORPHANS_S = 120


def write_world(folder: Path) -> Path:
    """Write a registry of two embedded students that are asked few questions, so that a run takes seconds."""
    folder.mkdir(parents=True, exist_ok=True)

    def cut(name: str, lines: int) -> str:
        text = (TINY / "prompts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"{Path(name).name}.jsonl").write_text("".join(text[:lines]), encoding="utf-8")
        return f'"{Path(name).name}.jsonl"'

    def split(name: str, lines: int) -> str:
        return f"{{ search = {cut(f'{name}.search', lines)}, report = {cut(f'{name}.report', lines)} }}"

    table = f"""
        [families.small]
        teacher = "{TINY / "models" / "mistral" / "teacher"}"
        harmful = {split("harmful", 12)}
        harmless = {split("harmless", 6)}
        text = {cut("text", 2)}
        dtype = "float32"
        max_new_tokens = 8
        batch_size = 64
        memory_gib = 0.1
        gate = {{ dsr = 0.5, over_refusal = 0.5, task = 0.5 }}
        search = {{ target_share = 0.9, task = 0.1, grain = "module", prior = "norm", together = "block" }}
        """
    for name in STUDENTS:
        table += f"""
        [families.small.students.{name}]
        path = "{TINY / "models" / "mistral" / name}"
        task = {split(f"tasks/{name}", 6)}
        """
    (folder / "small.toml").write_text(table, encoding="utf-8")
    return folder / "small.toml"


def differences(fact: object, expected: object, where: str = "") -> Iterator[str]:
    """Yield where two values differ, and how."""
    if isinstance(fact, Mapping) and isinstance(expected, Mapping):
        for key in sorted(fact.keys() | expected.keys()):
            yield from differences(fact.get(key), expected.get(key), f"{where}/{key}")
    elif isinstance(fact, list) and isinstance(expected, list) and len(fact) == len(expected):
        for number, pair in enumerate(zip(fact, expected, strict=True)):
            yield from differences(*pair, f"{where}/{number}")
    elif fact != expected:
        yield f"{where} {str(fact)[:200]}, expected {str(expected)[:200]}".strip()


@dataclass
class Trial:
    """A folder in which runs of one kind are killed, and end."""

    kind: str
    folder: Path
    registry: Path
    faults: list[str] = field(default_factory=list)

    @property
    def command(self) -> Sequence[str]:
        """The command that is killed, and run again."""
        code = "import sys; from safety_harness.cli.main import main; sys.exit(main(sys.argv[1:]))"
        if self.kind == "search":
            search = ["search", "--student", f"small/{STUDENTS[0]}", "--registry", str(self.registry)]
            return [sys.executable, "-c", code, *search, "--out", str(self.folder / "patch")]
        plain = ["-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
        of = [
            "--gate-registry",
            str(self.registry),
            "--gate-family",
            "small",
            "--gate-report-dir",
            str(self.folder / "reports"),
        ]
        processes = "0" if self.kind == "run" else "2"
        return [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-n", processes, *plain, *of]

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command in a process group of its own."""
        hidden = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        # One thread a process, also where there are no workers: on a busy machine two are far slower than one.
        one_thread = {"OMP_NUM_THREADS": "1", "PYTEST_XDIST_WORKER_COUNT": str(os.cpu_count())}
        alone = {**one_thread, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        environment = {**hidden, **alone, "SAFETY_HARNESS_CACHE": str(self.folder / "cache")}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                self.command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def finish(self) -> int:
        """Run the command to its end and return its exit code."""
        return self.start().wait(timeout=PATIENCE_S)

    def facts(self) -> dict[str, Any]:
        """Return what the last run measured or wrote, without the facts that differ from run to run."""
        if self.kind == "search":
            manifest = json.loads((self.folder / "patch" / "manifest.json").read_text(encoding="utf-8"))
            weights = sha256_file(self.folder / "patch" / "patch.safetensors")
            return {**steady_manifest(manifest), "weights": weights}
        return steady(json.loads((self.folder / "reports" / "latest" / "results.json").read_text(encoding="utf-8")))

    def patches(self) -> Mapping[str, Any]:
        """Return by its key each patch that the last run reported."""
        if self.kind == "search":
            found = [json.loads((self.folder / "patch" / "manifest.json").read_text(encoding="utf-8"))["search"]]
        else:
            table = json.loads((self.folder / "reports" / "latest" / "results.json").read_text(encoding="utf-8"))
            found = [student["about"]["patch"] for student in table["students"]]
        return {patch["key"]: patch for patch in found}

    def names(self) -> list[str]:
        """Return the path of every file that is there, but for the log and the reports of runs that were killed."""
        files = (path for path in self.folder.rglob("*") if path.is_file() and path.name != "log")
        reports, latest = self.folder / "reports", (self.folder / "reports" / "latest").resolve()
        return sorted(
            str(path.relative_to(self.folder)).replace(latest.name, "latest")
            for path in files
            if not path.is_relative_to(reports) or path.is_relative_to(latest)
        )

    def journalled(self) -> dict[str, int]:
        """Return by the key of its patch how many answers each search has kept, unless its patch is there too."""
        folder = self.folder / "cache" / "patches"
        lines = {path.name.partition(".")[0]: path.read_bytes().count(b"\n") for path in folder.glob("*.journal")}
        return {key: max(0, count - 1) for key, count in lines.items() if not (folder / key / "patch.json").exists()}

    def kill(self, after: float) -> bool:
        """Start the command, and kill what is to be killed after so many seconds. Return whether it still ran."""
        running = self.start()
        try:
            running.wait(timeout=after)
        except subprocess.TimeoutExpired:
            pass
        else:
            return False
        if self.kind in ("run", "search"):
            os.killpg(running.pid, signal.SIGKILL)
        elif self.kind == "controller":
            running.kill()
        else:
            workers = psutil.Process(running.pid).children()
            if not workers:
                running.kill()  # too early for a worker
            else:
                random.Random(after).choice(workers).kill()
        running.wait(timeout=PATIENCE_S)
        self.group = running.pid
        return True

    def orphans(self) -> list[psutil.Process]:
        """Return the processes that are left of the group that was killed."""
        left = []
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) == self.group and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return left

    def expect(self, fact: object, expected: object, what: str) -> None:
        """Note a fault if *fact* is not what was *expected*."""
        if fact != expected:
            self.faults.append(f"{what}: {'; '.join(itertools.islice(differences(fact, expected), 5))}")


def steady(table: dict[str, Any]) -> dict[str, Any]:
    """Return a results.json without dates, durations, and the courses, which lack what was answered before a kill."""
    for name in ("started", "seconds"):
        table["provenance"].pop(name)
    for student in table["students"]:
        for name in ("seconds", "course"):
            student["about"]["patch"].pop(name)
    return table


def steady_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest without its date, and without what :func:`steady` leaves out."""
    manifest.pop("created")
    for name in ("seconds", "course"):
        manifest["search"].pop(name)
    return manifest


@dataclass(frozen=True)
class Reference:
    """What a run leaves that nothing was killed before, and how long it took."""

    code: int
    facts: Mapping[str, Any]
    names: Sequence[str]
    seconds: float


def reference(kind: str, folder: Path, registry: Path) -> Reference:
    """Let a run of this *kind* come to its end."""
    trial = Trial(kind, folder / kind, registry)
    began = time.monotonic()
    code = trial.finish()
    if code:
        raise SystemExit((trial.folder / "log").read_text(encoding="utf-8", errors="replace"))
    return Reference(code, trial.facts(), trial.names(), time.monotonic() - began)


def killed(number: int, kind: str, of: Reference, folder: Path, registry: Path, seed: int = 0) -> Trial:
    """Kill a run at a random moment and let the next one end. Return it with its faults."""
    rng = random.Random(f"{seed} {number}")
    trial, moment = Trial(kind, folder / f"kill-{number}", registry), rng.uniform(0.3, 1.0)
    while not trial.kill(moment * of.seconds):
        moment *= 0.8  # the machine was quicker than before
        shutil.rmtree(trial.folder)
    journalled, report = trial.journalled(), trial.folder / "reports" / "latest" / "results.json"
    if kind == "worker" and report.exists():
        table = json.loads(report.read_text(encoding="utf-8"))
        if table["outcome"] in ("pass", "known red"):
            trial.expect(steady(table), of.facts, "a run that lost a worker passed")
    written = (trial.folder / "patch").exists()  # a search that was killed at its very end; --out may not exist
    trial.expect(trial.finish(), 2 if written else of.code, "exit code of the next run")
    if not trial.faults:
        trial.expect(trial.facts(), of.facts, "results of the next run")
        trial.expect(trial.names(), of.names, "files after the next run")
        for key, patch in trial.patches().items():
            # A worker lives on for a while, and may finish its search before the next run has the right to it.
            if key in journalled and kind in ("run", "search"):
                trial.expect(patch["probes"] - len(patch["course"]), journalled[key], "answers taken from the journal")
    until = time.monotonic() + ORPHANS_S
    while (left := trial.orphans()) and time.monotonic() < until:
        time.sleep(0.5)
    for process in left:
        process.kill()
    trial.expect(len(left), 0, "processes of the killed run that still live")
    held = f", {sum(journalled.values())} answers in journals" if journalled else ""
    print(f"{number:3} {kind:10} at {moment:.2f} of a run{held}: {'; '.join(trial.faults) or 'the same'}", flush=True)
    if not trial.faults:
        shutil.rmtree(trial.folder)
    return trial


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill as many runs as is asked for. Return 1 if a next run was not the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="first", type=int, default=0, help="the number of the first kill")
    parser.add_argument("--to", type=int, default=100, help="the number after that of the last kill")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    registry = write_world(folder / "world")
    numbers = {number: KINDS[number % len(KINDS)] for number in range(options.first, options.to)}
    of = {kind: reference(kind, folder / "reference", registry) for kind in dict.fromkeys(numbers.values())}
    runs = {kind: reference.facts for kind, reference in of.items() if kind != "search"}
    trials = [killed(number, kind, of[kind], folder, registry, options.seed) for number, kind in numbers.items()]
    kinds = Counter(trial.kind for trial in trials)
    different = sum(bool(trial.faults) for trial in trials) + sum(a != b for a in runs.values() for b in runs.values())
    print(f"{len(trials)} kills ({', '.join(f'{n} of a {kind}' for kind, n in kinds.items())}): {different} different")
    if not different:
        shutil.rmtree(folder)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
