"""Compare which attacks, statistics and gates other tools have, and what they cost, by their published archives.

    pip download --no-deps --dest FOLDER pyrit==1.1.0 garak==0.17.1 deepteam==1.0.10
    npm pack promptfoo@0.123.1 --pack-destination FOLDER
    python -m benchmarks.quality.attack_coverage --peers FOLDER

reads the archives as data and runs nothing of them. ``attack_coverage.toml`` holds each verdict with its evidence. The
command looks the evidence up, prints the tables and writes ``attack_coverage.md``. It ends with 1 if a text does not
stand where a verdict says, or a pattern that no file should match is matched.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_suffix(".toml")
PAGE = Path(__file__).with_suffix(".md")
TOOLS = ("ours", "pyrit", "garak", "deepteam", "promptfoo")
READ = (".py", ".js", ".yaml", ".json", ".toml", "METADATA")
SEARCHED = (".py", ".js", "METADATA")
# Lines of these would change with each commit.
OWN = ("safety_harness/", "suites/", "benchmarks/", "pyproject.toml")
WEB = ("/dist/src/app/", "/backend/frontend/")
VERDICTS = {"attacks": ("offline", "fixed", "model", "service", "none"), "decides": ("yes", "part", "no")}

Files = Mapping[str, str]
"""The text files of an archive by path."""


@dataclass(frozen=True)
class Cell:
    """A verdict on one tool in one row, and where it can be seen."""

    verdict: str
    note: str = ""
    at: Sequence[tuple[str, str]] = ()
    nowhere: str = ""
    under: str = ""
    only: Sequence[str] = ()

    def evidence(self, files: Files) -> list[str]:
        """Return the places that show the verdict.

        Raises:
            LookupError: a text does not stand in its file, or the pattern is matched elsewhere.
        """
        lines = [(file, line_of(files, file, text)) for file, text in self.at]
        shown = [f"`{file}`" if file.startswith(OWN) else f"`{file}`:{line}" for file, line in lines]
        if self.nowhere:
            found = matching(files, self.nowhere, self.under)
            if found != sorted(self.only):
                raise LookupError(f"/{self.nowhere}/ is matched by {found}, and should be by {sorted(self.only)}")
            where = f" under `{self.under}`" if self.under else ""
            beyond = f" but {', '.join(f'`{file}`' for file in self.only)}" if self.only else ""
            shown.append(f"no source file{where}{beyond} matches `{self.nowhere}`")
        return shown


@dataclass(frozen=True)
class Row:
    """One thing that tools have or have not, with a cell for each tool."""

    part: str
    name: str
    cells: Mapping[str, Cell] = field(default_factory=dict)


def line_of(files: Files, file: str, text: str) -> int:
    """Return the first line of *file* that holds *text*.

    Raises:
        LookupError: there is no such file, or no such line.
    """
    if file not in files:
        raise LookupError(f"there is no file {file}")
    for number, line in enumerate(files[file].splitlines(), 1):
        if text in line:
            return number
    raise LookupError(f"{file} has no line with {text!r}")


def matching(files: Files, pattern: str, under: str = "") -> list[str]:
    """Return the source files *under* a path that match *pattern*, in order."""
    wanted = re.compile(pattern)
    names = [name for name in files if name.startswith(under) and name.endswith(SEARCHED)]
    return sorted(name for name in names if wanted.search(files[name]))


def rows_of(table: Mapping[str, Any]) -> list[Row]:
    """Return the rows of the TOML *table*.

    Raises:
        ValueError: a row lacks a tool, or has a verdict that its part does not know.
    """
    rows = []
    for part in ("attacks", "decides", "costs"):
        for name, row in table[part].items():
            cells = {
                tool: Cell(cell["is"], **{key: value for key, value in cell.items() if key != "is"})
                for tool, cell in row.items()
                if tool != "title"
            }
            if tuple(cells) != TOOLS:
                raise ValueError(f"{part}.{name} has cells for {list(cells)}, and needs {list(TOOLS)}")
            wrong = [cell.verdict for cell in cells.values() if cell.verdict not in VERDICTS.get(part, [cell.verdict])]
            if wrong:
                raise ValueError(f"{part}.{name}: {wrong[0]!r} is none of {', '.join(VERDICTS[part])}")
            bare = [tool for tool, cell in cells.items() if not cell.at and not cell.nowhere]
            if bare:
                raise ValueError(f"{part}.{name}: the cell of {bare[0]} has no evidence")
            rows.append(Row(part, row.get("title", name), cells))
    return rows


def opened(archive: Path, sha256: str) -> Files:
    """Return the text files of a wheel or of an npm archive. Bundles of web pages are left out.

    Raises:
        SystemExit: it is missing, or another one.
    """
    if not archive.is_file():
        raise SystemExit(f"{archive}: there is no such file. Download it as {Path(__file__).name} says at its top.")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        raise SystemExit(f"{archive}: its sha256 is not {sha256}. Download it again.")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name).decode("utf-8", "replace") for name in wheel.namelist() if _is_read(name)}
    files = {}
    with tarfile.open(archive) as package:
        for member in package:
            if _is_read(member.name) and (content := package.extractfile(member)):
                files[member.name] = content.read().decode("utf-8", "replace")
    return files


def _is_read(name: str) -> bool:
    return name.endswith(READ) and not any(folder in name for folder in WEB)


def own_files(root: Path = ROOT) -> Files:
    """Return the text files of this repository that verdicts point to."""
    places = ("safety_harness/**/*.py", "safety_harness/**/*.toml", "suites/*.py", "benchmarks/quality/*.md", "*.toml")
    return {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for place in places
        for path in sorted(root.glob(place))
    }


def classes_of(files: Files, under: str) -> dict[str, ast.ClassDef]:
    """Return the classes of the Python files *under* a path, by name."""
    return {
        node.name: node
        for name, text in files.items()
        if name.startswith(under) and name.endswith(".py")
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef)
    }


def takes(node: ast.ClassDef, method: str, parameter: str) -> bool:
    """Return whether the *method* of a class has a *parameter*."""
    return any(
        parameter in [argument.arg for argument in (*one.args.args, *one.args.kwonlyargs)]
        for one in node.body
        if isinstance(one, ast.FunctionDef) and one.name == method
    )


def abstract(node: ast.ClassDef) -> bool:
    """Return whether a class leaves a method to others."""
    methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any("abstractmethod" in ast.unparse(mark) for one in methods for mark in one.decorator_list)


def derived(classes: Mapping[str, ast.ClassDef], base: str) -> list[str]:
    """Return the names of *classes* that derive from *base*, directly or through others of them."""
    found = {base}
    while more := {
        name
        for name, node in classes.items()
        if name not in found and any(isinstance(one, ast.Name) and one.id in found for one in node.bases)
    }:
        found |= more
    return sorted(found - {base})


def counted(files: Mapping[str, Files]) -> list[tuple[str, object, str]]:
    """Return what can be counted in the archives: a tool, a number, and what it counts."""
    converters = classes_of(files["pyrit"], "pyrit/converter/")
    named = [name for name in derived(converters, "Converter") if not abstract(converters[name])]
    asking = [name for name in named if takes(converters[name], "__init__", "converter_target")]
    templates = [name for name in files["pyrit"] if name.startswith("pyrit/datasets/jailbreak/templates/")]
    plugins = json.loads(files["garak"]["garak/resources/plugin_cache.json"])
    probes = plugins["probes"].values()
    attackers = [one for one in probes if any("model_type" in key for key in one.get("DEFAULT_PARAMS") or {})]
    single = classes_of(files["deepteam"], "deepteam/attacks/single_turn/")
    single_names = derived(single, "BaseSingleTurnAttack")
    multi = classes_of(files["deepteam"], "deepteam/attacks/multi_turn/")
    strategies = files["promptfoo"]["package/dist/src/strategies-De9by-Pd.js"].partition("const Strategies = [")[2]
    return [
        ("pyrit", len(named), f"converters of text, images, sound and files; {len(asking)} of them ask a model"),
        ("pyrit", len(templates), "jailbreak templates"),
        ("garak", len(probes), f"probes; {sum(one['active'] for one in probes)} are active by default"),
        ("garak", len(attackers), "probes that need an attacker model"),
        ("garak", len(plugins["buffs"]) - 1, "buffs; three need no model and no service"),
        ("deepteam", len(single_names), "single-turn attacks"),
        (
            "deepteam",
            sum(takes(single[name], "enhance", "simulator_model") for name in single_names),
            "of them ask a model",
        ),
        ("deepteam", len(derived(multi, "BaseMultiTurnAttack")), "multi-turn attacks, all by a model"),
        ("promptfoo", len(re.findall(r"^\t\tid: \"", strategies, flags=re.MULTILINE)), "strategies"),
    ]


def compact(rows: Iterable[Row]) -> str:
    """Return the table of verdicts alone."""
    titles = {"attacks": "Attack: ", "decides": "", "costs": ""}
    lines = [(titles[row.part] + row.name, *(row.cells[tool].verdict for tool in TOOLS)) for row in rows]
    return tabulate(lines, ("", *TOOLS), tablefmt="github", disable_numparse=True)


def evidence(rows: Iterable[Row], files: Mapping[str, Files]) -> tuple[list[str], list[str]]:
    """Return a list with the evidence of each cell, and what of it does not hold."""
    lines, faults = [], []
    for row in rows:
        lines.append(f"\n**{row.name}**\n")
        for tool, cell in row.cells.items():
            try:
                shown = "; ".join(cell.evidence(files[tool]))
            except LookupError as fault:
                faults.append(f"{row.name}, {tool}: {fault}")
                shown = "not found"
            note = f" ({cell.note})" if cell.note else ""
            lines.append(f"- {tool}: {cell.verdict}{note}. {shown}")
    return lines, faults


def page(rows: Sequence[Row], files: Mapping[str, Files]) -> tuple[str, list[str]]:
    """Return the page, and what of the evidence does not hold."""
    lines, faults = evidence(rows, files)
    counts = tabulate(counted(files), ("tool", "count", "of"), tablefmt="github")
    return (
        f"""# Attacks, statistics and gates of five tools

PyRIT 1.1.0, garak 0.17.1, deepteam 1.0.10 and promptfoo 0.123.1 were read from their published archives, and nothing of
them was run for this page ([attack_texts.md](attack_texts.md) runs them). The sha256 of each archive is checked, and so
is each piece of evidence below. These commands make the page:

```console
$ pip download --no-deps --dest FOLDER pyrit==1.1.0 garak==0.17.1 deepteam==1.0.10
$ npm pack promptfoo@0.123.1 --pack-destination FOLDER
$ python -m benchmarks.quality.attack_coverage --peers FOLDER
```

An attack is *offline* if any question can be put into it on this machine without a model, and *fixed* if the tool has
prompts of its own only. It asks a *model*, or a remote *service*, to write the text, or the tool has *none*.

{compact(rows)}

## Counts

{counts}

## Installed

Counted in virtual environments of Python 3.11 that hold what pip's resolver chose on 30 November 2026, the tool itself
included, without compiled modules. torch and its CUDA and Triton packages are left out: ours and garak's are equally
large. promptfoo was counted in `node_modules`, with and without optional packages. Sizes are of the blocks on disk.

```console
$ pip install --dry-run --ignore-installed --report REPORT.json garak==0.17.1
$ pip install --no-deps --no-compile NAME==VERSION ...
$ du -sm lib/python3.11/site-packages
$ npm install --ignore-scripts promptfoo@0.123.1 && du -sm node_modules
$ npm prune --omit=optional && du -sm node_modules
```

## Evidence

A path is one in the archive, with the line of the first match, or for ours and `benchmarks/` one in this repository.
"""
        + "\n".join(lines)
        + "\n",
        faults,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder with the archives")
    arguments = parser.parse_args()
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    own = own_files()
    measured = {name: text for name, text in own.items() if name.startswith("benchmarks/")}
    files = {"ours": own} | {
        peer: measured | opened(arguments.peers / archive["file"], archive["sha256"])
        for peer, archive in table["archives"].items()
    }
    text, faults = page(rows_of(table), files)
    print(text)
    PAGE.write_text(text, encoding="utf-8")
    if faults:
        raise SystemExit("This evidence does not hold:\n" + "\n".join(faults))


if __name__ == "__main__":
    main()
