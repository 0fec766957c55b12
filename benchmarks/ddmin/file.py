"""Reduce one file by lines through each tool's command, with one interestingness script for all of them.

    python -m benchmarks.ddmin.file --own 'safety-harness reduce' --peers /path/to/venv/bin

The file is the standard library's `heapq.py`. It stays interesting while it can be parsed and still defines `merge`,
`nsmallest` and `heapreplace`. The script then exits 0, the convention that the tools share. Lithium asks a Python
module instead, and the module calls the script. One script runs at a time, and each tool has its defaults (picire also
with subsets skipped). The script itself counts how often it is run.
"""

from __future__ import annotations

import argparse
import ast
import heapq
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

NEEDED = ("merge", "nsmallest", "heapreplace")
SCRIPT = """#!{python} -S
import ast, sys
with open({log!r}, "a") as log:
    log.write(".")
try:
    with open(sys.argv[-1]) as file:
        defined = {{getattr(node, "name", None) for node in ast.parse(file.read()).body}}
except (SyntaxError, ValueError):
    sys.exit(1)
sys.exit(not set({needed!r}) <= defined)
"""
MODULE = """import subprocess
def interesting(arguments, _):
    return subprocess.call([{script!r}, arguments[-1]]) == 0
"""


def measure(name: str, command: list[str], result: Path | None, folder: Path) -> str:
    """Run one command. Return a row with its runs of the script, its seconds, and the lines that are left."""
    log = folder / "runs"
    log.write_text("")
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode or result is None or not result.exists():
        return f"| {name} | failed with exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]} | | | |"
    text = result.read_text()
    kept = {getattr(node, "name", None) for node in ast.parse(text).body} >= set(NEEDED)
    lines = len(text.splitlines())
    return f"| {name} | {len(log.read_text())} | {seconds:.1f} s | {lines} | {'yes' if kept else 'NO'} |"


def tool(name: str, options: argparse.Namespace, folder: Path, script: Path) -> str:
    """Return the row of one tool, on a fresh copy of the file."""
    source = folder / "input.py"
    source.write_text(Path(heapq.__file__).read_text())
    if name.startswith("picire"):
        out = folder / "out"
        command = [f"{options.peers}/picire", "-q", "-i", str(source), "--test", str(script), "-o", str(out)]
        command += ["--subset-iterator", "skip"] if "skip" in name else []
        return measure(name, command, out / "input.py", folder)
    if name == "lithium":
        module = folder / "condition.py"
        module.write_text(MODULE.format(script=str(script)))
        return measure(name, [f"{options.peers}/lithium", str(module), str(source)], source, folder)
    own = [*shlex.split(options.own), *name.split()[2:], str(source), str(script)]
    return measure(name, own, folder / "input.reduced.py", folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Run every command, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--own", default="safety-harness reduce", help="the command to measure")
    parser.add_argument("--peers", required=True, help="directory with the commands of picire and lithium")
    parser.add_argument("--out", type=Path, help="write the table there, in Markdown")
    options = parser.parse_args(argv)
    for command in ("picire", "lithium"):
        if shutil.which(f"{options.peers}/{command}") is None:
            parser.error(f"no {command} in {options.peers}; pip install picire lithium-reducer 'setuptools<80' there")
    lines = len(Path(heapq.__file__).read_text().splitlines())
    rows = ["| command | runs of the script | time | lines left | still interesting |", "|---" * 5 + "|"]
    for name in (
        "picire",
        "picire skip",
        "lithium",
        "safety-harness reduce",
        "safety-harness reduce --strategy adaptive",
    ):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            script = folder / "interesting.py"
            script.write_text(SCRIPT.format(python=sys.executable, log=str(folder / "runs"), needed=NEEDED))
            script.chmod(0o755)
            rows.append(tool(name, options, folder, script))
            print(rows[-1], file=sys.stderr, flush=True)
    text = f"heapq.py of Python {sys.version.split()[0]}, {lines} lines.\n\n" + "\n".join(rows) + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(
            f"# A file\n\n`python -m benchmarks.ddmin.{Path(__file__).stem} --peers DIR`: {text}", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
