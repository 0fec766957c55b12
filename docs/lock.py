"""Write the hashes of all that constraints.txt pins: ``python docs/lock.py``, in an environment that has uv.

Every file that PyPI has of a pinned version is listed, for all platforms and every Python that the package supports.
torch has a file of its own, with the CUDA libraries that its builds on PyPI need: other indexes serve other builds of
the same version, for which PyPI knows no hash.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, TORCH = ROOT / "requirements.lock", ROOT / "requirements-torch.lock"
HEAD = "# Written by `python docs/lock.py`; pip installs these with --no-deps --require-hashes.\n"

_OLDEST_PYTHON = "3.11"
_TORCH = re.compile(r"(torch|triton|nvidia-|cuda-)")
_PIN = re.compile(r"^(?=[\w.-]+==)", re.MULTILINE)


def resolved() -> str:
    """Return what uv resolves: a pin and its hashes for each package that any platform needs.

    Raises:
        CalledProcessError: uv finds no solution, or reaches no index.
    """
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
    given = ["--python-version", _OLDEST_PYTHON, "-c", "constraints.txt", "--extra", "dev", "pyproject.toml"]
    done = subprocess.run(
        [*command, *given, "--no-emit-package", "safety-harness"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def main() -> None:
    """Write both files."""
    pins = [pin for pin in _PIN.split(resolved()) if pin.strip()]
    LOCK.write_text(HEAD + "".join(pin for pin in pins if not _TORCH.match(pin)), encoding="utf-8")
    TORCH.write_text(HEAD + "".join(pin for pin in pins if _TORCH.match(pin)), encoding="utf-8")


if __name__ == "__main__":
    main()
