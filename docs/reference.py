"""Write docs/reference.md from the code: ``python docs/reference.py``. A test holds the two together."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tabulate import tabulate

from safety_harness.cli import main as cli
from safety_harness.digests import REHASH_VARIABLE
from safety_harness.evaluation.gpus import VISIBLE
from safety_harness.files import CACHE_VARIABLE
from safety_harness.judges.guards import forms
from safety_harness.plugin import fixtures, options
from safety_harness.plugin.collector import EXIT_INCONCLUSIVE
from safety_harness.registry import judges, schema, sources
from safety_harness.registry.named import KINDS, sets
from safety_harness.registry.options import OPTIONS, settings_options
from safety_harness.registry.settings import PRESETS, GateSettings, SearchSettings, screen_tokens
from safety_harness.report.github import ACTIONS, SUMMARY
from safety_harness.weights.architectures import layouts

FILE = Path(__file__).with_name("reference.md")
FIXTURES = (
    fixtures.gate_student, fixtures.gate_teacher, fixtures.gate_patch, fixtures.gate_subject, fixtures.gate_attack,
    fixtures.gate_measure,
)  # fmt: skip
TABLES = (
    schema.Family, schema.Backend, schema.StudentSpec, schema.Served, schema.ModelSpec, sources.Source,
    sources.SplitSpec, sources.PromptSource, sources.FurtherQuestions, sources.MustQuestions,
    judges.ModelJudge, judges.ClassifierJudge, judges.GuardJudge, judges.EndpointJudge,
)  # fmt: skip
EXIT_CODES = (
    (
        "pytest, gate",
        int(pytest.ExitCode.OK),
        "every student came out as the registry states (PASS, or KNOWN RED)",
    ),
    ("pytest, gate", int(pytest.ExitCode.TESTS_FAILED), "a student did not, or a test failed"),
    ("pytest, gate", int(pytest.ExitCode.INTERRUPTED), "interrupted, or a suite cannot be imported"),
    ("pytest, gate", int(pytest.ExitCode.INTERNAL_ERROR), "pytest or a plugin broke"),
    ("pytest, gate", int(pytest.ExitCode.USAGE_ERROR), "wrong usage: an option, a registry, a missing file"),
    ("pytest, gate", int(pytest.ExitCode.NO_TESTS_COLLECTED), "no test was selected"),
    ("pytest, gate", EXIT_INCONCLUSIVE, "inconclusive: not enough evidence, or no report could be written"),
    ("all other commands", 0, "done, and the answer is yes"),
    (
        "all other commands",
        1,
        "done, and the answer is no: the gate failed or is inconclusive, no patch, a difference, another state",
    ),
    ("all other commands", 2, "wrong usage or input"),
    ("all other commands", 130, "interrupted; what was finished is kept"),
    ("all other commands", 141, "the reader of its output has gone"),
)
VARIABLES = (
    (CACHE_VARIABLE, "folder for prepared models and patches, instead of the user's cache folder"),
    (REHASH_VARIABLE, "when set, every weight file is hashed again, instead of once a machine"),
    (VISIBLE, "the GPUs of a run, by UUID or number; its workers are dealt to these alone"),
    (SUMMARY, "file to which a gated run appends its short report (set by GitHub)"),
    (ACTIONS, "when set, reasons against a release are printed as annotations (set by GitHub)"),
    ("CI", "when set, no live lines are drawn"),
)


class _Group:
    """A stand-in for pytest's parser that keeps the name and the help of each option."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def addoption(self, name: str, **about: Any) -> None:
        """Record one option, with its choices or a placeholder for its value."""
        if choices := about.get("choices"):
            name = f"{name} {'|'.join(choices)}"
        elif about.get("action") != "store_true":
            name = f"{name} {about.get('metavar') or 'X'}"
        self.rows.append((f"`{name}`", str(about["help"])))


def reference() -> str:
    """Return the text of docs/reference.md."""
    group: Any = _Group()
    options.add_options(group, (*OPTIONS, *settings_options()))
    sections = [
        "# Reference",
        "Written by `python docs/reference.py` from the code; do not edit.",
        "## Options of `pytest`",
        _table(("option", "what it does"), group.rows),
        "## Fixtures",
        _table(
            ("fixture", "what it is"),
            list(_fixtures()),
        ),
        "## Settings",
        "In a registry file under `[families.NAME.search]` and `[families.NAME.gate]` (or `[defaults.search]`, "
        "`[defaults.gate]` for all of its families); an option of the run comes before either.",
        *(
            part
            for kind, model in (("search", SearchSettings), ("gate", GateSettings))
            for part in _fields(kind, model)
        ),
        "### presets",
        "The key `preset` of a family chooses the defaults of its `search`; those above are of `standard`. "
        "An unset `target_share`, `over_refusal` or `task` is derived from the gate and the number of questions "
        "(`safety_harness/gate/room.py`).",
        _table(("preset", "differs from `standard` in"), [(f"`{name}`", text) for name, text in _presets()]),
        "## Registry",
        *(part for model in TABLES for part in _fields(model.__name__, model)),
        "## Guards",
        "What `form` of a guard names ([judges](judge.md#choose-a-judge)): rows of `judges/guards.toml`.",
        _table(("form", "says", "prompt", "source"), list(_guards())),
        "## Question sets",
        "What a name stands for where a registry says which questions are asked ([questions](questions.md)).",
        _table(("name", "kind", "number", "licence", "from", "what it is"), list(_question_sets())),
        "## Commands of `safety-harness`",
        *_commands(),
        "## Architectures",
        "By `model_type` in a checkpoint's `config.json`. Another one is "
        "[a row](../CONTRIBUTING.md#add-an-architecture) in `safety_harness/weights/architectures.toml`. "
        "Roles in brackets move only where `roles` in `search` names them.",
        _table(("model_type", "roles that may move"), [(f"`{name}`", text) for name, text in _architectures()]),
        "## Exit codes",
        _table(("program", "code", "meaning"), EXIT_CODES),
        "## Environment variables",
        _table(("variable", "meaning"), [(f"`{name}`", text) for name, text in VARIABLES]),
    ]
    return "\n\n".join(sections) + "\n"


def _fixtures() -> Iterator[tuple[str, str]]:
    """Yield the names and the docstring of each fixture that suites use."""
    for fixture in FIXTURES:
        function = inspect.unwrap(getattr(fixture, "_fixture_function", fixture))
        name = function.__name__
        yield f"`{name.removeprefix('gate_')}`, `{name}`", _line(function.__doc__)


def _guards() -> Iterator[tuple[str, str, str, str]]:
    """Yield each form of a guard, what it says, where its prompt comes from, and who documents it."""
    for name, form in forms().items():
        says = ", ".join(line.axis for line in form.lines if line.axis)
        prompt = "its chat template" if form.prompt == "chat" else "a file (`prompt`)"
        yield f"`{name}`", says, prompt, form.source


def _presets() -> Iterator[tuple[str, str]]:
    """Yield each preset with the settings in which it differs from the defaults."""
    for name, settings in PRESETS.items():
        differing = [f"`{setting} = {value!r}`" for setting, value in settings.items()]
        if screen_tokens(name, 100) == 100:
            differing.append("`screen_tokens`: every answer is generated to its end")
        yield name, ", ".join(differing) or "nothing"


def _architectures() -> Iterator[tuple[str, str]]:
    """Yield each supported model_type with its roles; those that move only on request stand in brackets."""
    for model_type, layout in sorted(layouts().items()):
        yield model_type, " ".join(f"({role})" if role in layout.unasked else role for role in layout.roles)


def _question_sets() -> Iterator[tuple[str, ...]]:
    """Yield what is known about each set of the catalogue, with a link to where it comes from unless it is ours."""
    for kind in KINDS:
        for name, one in sets(kind).items():
            title = one.title if one.origin == "this package" else f"[{one.title}]({one.url})"
            yield f"`{name}`", kind, f"{one.questions:,}", one.licence, one.origin, f"{title}: {one.use}"


def _fields(name: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield the section of one model: heading, docstring if it is a registry table, and a table of its keys."""
    introduced = {key: field for key, field in model.model_fields.items() if _introduces(model, key)}
    described = any(field.description for field in introduced.values())
    yield f"### `{name}`"
    if model in TABLES:
        also = " and ".join(f"`{base.__name__}`" for base in _bases(model))
        yield _line(model.__doc__) + (f" Also takes every key of {also}." if also else "")
    rows = []
    for key, field in introduced.items():
        default = "required" if field.is_required() else _default(field.default)
        cells = [f"`{key}`", f"`{_type(model, key)}`", default]
        rows.append((*cells, field.description or "") if described else tuple(cells))
    yield _table(("key", "type", "default", *(["meaning"] if described else [])), rows)


def _introduces(model: type[BaseModel], key: str) -> bool:
    """Return whether *key* is more than inherited from another table that is listed here."""
    return not any(key in base.model_fields for base in _bases(model))


def _bases(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the tables listed here that *model* inherits keys from."""
    return [base for base in model.__mro__[1:] if base in TABLES]


def _type(model: type[BaseModel], key: str) -> str:
    """Return the annotation of *key* as the source has it, less pydantic's constraints."""
    text = str(next(vars(base)["__annotations__"][key] for base in model.__mro__ if key in _annotations(base)))
    return re.sub(r"\b(Annotated\[|Field\(.*\))", "", text)


def _annotations(base: type) -> dict[str, Any]:
    """Return the annotations that the class itself writes, not those of its bases."""
    annotations: dict[str, Any] = vars(base).get("__annotations__", {})
    return annotations


def _default(value: object) -> str:
    """Return a default as a cell shows it: empty where nothing is set."""
    if isinstance(value, BaseModel):
        return "see Settings"
    return "" if value in (None, "", (), {}) else f"`{value}`"


def _commands(parser: argparse.ArgumentParser | None = None, program: str = "safety-harness") -> Iterator[str]:
    """Yield a heading, the help and a table of arguments for each command of *program*, and of its own commands."""
    parser = parser or cli.parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield f"### `{program} {name}`"
                yield _line(next(each.help for each in action._choices_actions if each.dest == name))
                rows = [(f"`{_called(each)}`", each.help or "") for each in command._actions if _is_argument(each)]
                if rows:
                    yield _table(("argument", "what it is"), rows)
                yield from _commands(command, f"{program} {name}")


def _is_argument(action: argparse.Action) -> bool:
    """Return whether *action* is an argument of a command that its help shows, and not commands of its own."""
    is_shown = action.dest != "help" and action.help != argparse.SUPPRESS
    return is_shown and not isinstance(action, argparse._SubParsersAction)


def _called(action: argparse.Action) -> str:
    """Return how an argument is written on the command line, with its choices or a placeholder."""
    if not action.option_strings:
        return str(action.metavar or action.dest)
    choices = "|".join(map(str, action.choices)) if action.choices else ""
    value = f" {choices or action.metavar or action.dest.upper()}" if action.nargs != 0 else ""
    return f"{', '.join(action.option_strings)}{value}"


def _line(text: str | None) -> str:
    """Return *text* on one line, with single backquotes for the double ones of docstrings."""
    return " ".join((text or "").replace("``", "`").split())


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; pipes in cells are escaped."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
