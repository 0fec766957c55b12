"""Run ``safety-harness init``: look at a student and its teacher, and write all that gating them takes."""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from safety_harness.cli.common import Commands, Parser, command
from safety_harness.cli.registry_text import Answers, registry_text
from safety_harness.cli.sources import Look, check_pair, is_address, look, look_at_server, place_of, size_text
from safety_harness.cli.versions import constraints, package
from safety_harness.errors import ConfigError, DataError, HarnessError
from safety_harness.files import explain_disk_errors, write_whole
from safety_harness.reading import shown
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.named import sets, unknown
from safety_harness.registry.options import DEFAULT_REGISTRY
from safety_harness.registry.prompts import read_prompts
from safety_harness.registry.settings import PRESETS

if TYPE_CHECKING:
    from safety_harness.evaluation.estimate import Need
    from safety_harness.evaluation.machine import Machine

CONSTRAINTS = "gate-constraints.txt"
CI_FILES = {"github": ".github/workflows/gate.yml", "gitlab": ".gitlab-ci.yml"}
IGNORED = ("reports/", ".safety_harness/", "patch/", "released/")


def add_init(commands: Commands[Parser]) -> None:
    """Add the command ``init``."""
    parser = command(
        commands,
        "init",
        "write the registry and the CI files that gate a model of yours",
        examples=[
            "",
            "--student models/ours --teacher org/instruct --yes",
            "--student http://localhost:8000/v1 --model ours --yes",
        ],
        more="Asks on a terminal for what no option says. Only headers of the models are read.",
    )
    parser.set_defaults(run=_init)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="folder to write to (default: this one)")
    model = "a folder, a .gguf file, a LoRA adapter or a name of the hub"
    parser.add_argument("--student", help=f"the model to be released: {model}; or a server's address (http://…/v1)")
    parser.add_argument("--model", help="of a served student, the name by which its server knows it")
    parser.add_argument("--key-env", metavar="VARIABLE", help="environment variable with the key of that server")
    parser.add_argument("--teacher", help=f"a model of its architecture and size that refuses: {model}; '' for none")
    parser.add_argument(
        "--task",
        action="append",
        help="a file of questions with answers that test the student's own task, or the name of a set; of two, the "
        "first is to search on and the second is held out",
    )
    parser.add_argument("--family", default="mine", help="name of the family in the registry (default: mine)")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="standard", help="settings of the search")
    parser.add_argument("--ci", choices=(*CI_FILES, "both", "none"), default="both", help="CI files (default: both)")
    parser.add_argument("--yes", action="store_true", help="ask nothing: what no option says is left out")
    parser.add_argument("--force", action="store_true", help="write over files that are there")


def _init(options: argparse.Namespace) -> int:
    """Write the files, and print the plan for this machine and the commands that follow."""
    ci = tuple(CI_FILES) if options.ci == "both" else () if options.ci == "none" else (options.ci,)
    _check_names(options, ci)
    folder: Path = options.folder
    asks = not options.yes and sys.stdin.isatty()
    # Each answer is looked at before the next question.
    name = _given(options.student, asks, "The model to be released (a folder, a .gguf file or a name of the hub): ")
    if not name:
        raise ConfigError("Which model is to be released? Name it with --student.")
    served = is_address(name)
    if served:
        name, student = _served(options, asks, name)
    elif options.model or options.key_env:
        raise ConfigError("--model and --key-env are of a server: name its address with --student.")
    else:
        student = _looked_at("student", name, look(name, folder))
    question = "A model of its architecture and size that refuses (Enter for none): "
    aligned = _given("" if served else options.teacher, asks, question)
    teacher = _looked_at("teacher", aligned, look(aligned, folder)) if aligned else None
    if teacher:
        check_pair(student, teacher, folder)
    question = "A file of questions with answers that test its own task (Enter for none): "
    task = tuple(file for file in options.task or [_given(None, asks, question)] if file)
    _check_task(task)
    answers = Answers(folder, name, aligned, task, options.family, options.preset, ci, options.force)
    # To measure the machine brings torch, which takes seconds: what is wrong was said before.
    from safety_harness.evaluation.machine import measure

    machine = measure()
    text = registry_text(answers, student, teacher, machine)
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    planned, need = _planned(text, folder, machine)
    if need:  # the plan says how much memory a worker takes
        text = registry_text(answers, student, teacher, machine, memory=need.memory)
    _write(answers, text)
    print(_closing(answers, machine, planned, need))
    return 0


def _given(option: str | None, asks: bool, question: str) -> str:
    """Return what an *option* says, or else the answer to a *question* if there is somebody who *asks*; or nothing."""
    if option is not None or not asks:
        return option or ""
    try:
        return input(question).strip().strip("\"'")  # in which a terminal puts a folder that is dragged to it
    except EOFError:
        return ""


def _served(options: argparse.Namespace, asks: bool, address: str) -> tuple[str, Look]:
    """Return the name and the look of a student that a server answers for.

    Raises:
        ConfigError: no model is named, or a teacher is.
    """
    if options.teacher:
        raise ConfigError("--teacher: a served student is gated as it is; its weights are not here to be patched.")
    model = _given(options.model, asks, "The name by which the server knows the model: ")
    if not model:
        raise ConfigError("Which model of the server is to be released? Name it with --model.")
    return model, _looked_at("student", model, look_at_server(address, model, options.key_env))


def _looked_at(role: str, name: str, seen: Look) -> Look:
    """Say what was seen of a model, and return it."""
    print(f"{role}: {name}: {seen}", flush=True)
    return seen


def _check_names(options: argparse.Namespace, ci: Sequence[str]) -> None:
    """Check the names that the options give, and that no file would be written over.

    Raises:
        ConfigError: one would, and the user did not say so; or a name cannot be used.
    """
    folder, family = options.folder, options.family
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", family) or not re.search(r"[A-Za-z0-9]", family):
        raise ConfigError(f"--family {family!r:.120}: use ASCII letters, digits, '-', '_' and '.' only.")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{shown(folder)}: is a file. Name a folder to write to.")
    of_ci = [*(CI_FILES[kind] for kind in ci), CONSTRAINTS] if ci else []
    for name, way in {DEFAULT_REGISTRY: "", **dict.fromkeys(of_ci, ", leave it out with --ci")}.items():
        if (folder / name).exists() and not options.force:
            place = shown(folder / name)
            raise ConfigError(f"{place}: exists. Write to another folder{way}, or write over it with --force.")


def _check_task(files: Sequence[str]) -> None:
    """Check that the files of a task can be read and hold answers.

    Raises:
        HarnessError: one cannot, or there are more than two.
    """
    if len(files) > 2:
        raise ConfigError("--task: give one file, or two: one to search on and one held out.")
    for name in files:
        place = place_of(name)
        if name in sets("task"):
            continue
        if not place.exists():
            raise ConfigError(f"--task: no such file. {unknown('set', name[:200], sets('task'))}")
        unanswered = [prompt.text for prompt in read_prompts(place) if prompt.answer is None]
        if unanswered and place.suffix != ".jsonl":
            raise DataError(
                f"{name}: only JSON lines say which text is the answer. Leave --task out, and write into "
                f'{DEFAULT_REGISTRY}: task = {{ path = "{name}", answer = "NAME OF ITS COLUMN" }}'
            )
        if unanswered:
            raise DataError(f'{name}: {unanswered[0][:80]!r} has no "answer". Give each question of a task one.')


def _planned(text: str, folder: Path, machine: Machine) -> tuple[Student, Need | None]:
    """Return the student that the registry *text* describes, and what gating it takes if that is known by now.

    Raises:
        HarnessError: the registry cannot be read, or *folder* cannot be written to.
    """
    from safety_harness.evaluation.estimate import plan

    with (
        explain_disk_errors(folder / DEFAULT_REGISTRY),
        tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", suffix=".toml", encoding="utf-8") as draft,
    ):
        draft.write(text)
        draft.flush()
        (student,) = load_registry(Path(draft.name)).select()
    try:
        return student, plan(student, machine.device) if student.patchable else None
    except HarnessError:  # not known before it is fetched, and said when it was looked at
        return student, None


def _write(answers: Answers, text: str) -> None:
    """Write the registry, the CI files and what git is to ignore."""
    folder = answers.folder
    write_whole(folder / DEFAULT_REGISTRY, text)
    written = [DEFAULT_REGISTRY]
    for kind in answers.ci:
        (folder / CI_FILES[kind]).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / CI_FILES[kind], template(kind))
        written.append(CI_FILES[kind])
    if answers.ci:
        write_whole(folder / CONSTRAINTS, constraints())
        written.append(CONSTRAINTS)
    ignore = folder / ".gitignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
    if missing := [name for name in IGNORED if name not in lines]:
        write_whole(ignore, "\n".join([*lines, *missing, ""]))
        written.append(".gitignore")
    print(f"wrote {', '.join(written)} in {folder.absolute()}")


def template(kind: str, requirement: str = "") -> str:
    """Return the text of a CI file: ``github`` or ``gitlab``. It installs *requirement*, or what is installed here."""
    text = (resources.files("safety_harness.cli") / "templates" / f"{kind}.yml").read_text(encoding="utf-8")
    return text.replace("@PACKAGE@", requirement or package())


def _closing(answers: Answers, machine: Machine, student: Student, need: Need | None) -> str:
    """Return the plan for this machine, and the commands that follow."""
    lines = [f"machine: {machine}"]
    if need:
        minutes = "–".join(f"{math.ceil(seconds / 60)}" for seconds in need.seconds)
        time = f"about {minutes} minutes" if need.seconds[1] >= 60 else "less than a minute"
        fetched = f"; {size_text(need.download)} to fetch" if need.download else ""
        lines.append(
            f"plan: {'–'.join(map(str, need.probes))} probes, {time} and {size_text(need.memory)} a worker in "
            f"{student.family.dtype}{fetched}"
        )
    elif not student.patchable:
        lines.append("plan: gated as it is; without a teacher no patch is searched")
    else:
        lines.append("plan: not known before the models are fetched: safety-harness fetch, then safety-harness plan")
    inside = "" if answers.folder.resolve() == Path.cwd() else f"cd {answers.folder} && "
    return "\n".join([*lines, "next:", f"  {inside}safety-harness doctor", f"  {inside}safety-harness gate"])


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
