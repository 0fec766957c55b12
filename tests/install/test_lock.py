"""Check that every version that is pinned has its hashes, and that make holds files against them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-torch.lock")
BLOCK = re.compile(r"^([\w.-]+)==([\w.!+]+)(?: ; [^\\\n]+)?((?: \\\n +--hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def plain(name: str) -> str:
    """Return the name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(*files: str) -> dict[str, str]:
    """Return the version of each package that *files* pin with its hashes."""
    return {plain(m[1]): m[2] for file in files for m in BLOCK.finditer((ROOT / file).read_text(encoding="utf-8"))}


def test_the_locks_hold_the_versions_of_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(name): version for name, _, version in (line.partition("==") for line in lines if line[0] != "#")}
    found = locked(*LOCKS)
    assert {name: found.get(name) for name in pinned} == pinned, "python docs/lock.py"


@pytest.mark.parametrize("file", LOCKS)
def test_a_lock_is_nothing_but_pins_and_hashes(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    rest = BLOCK.sub("", text).strip().splitlines()
    assert [line for line in rest if line.strip()] == [text.splitlines()[0]]
    assert text.startswith("# Written by")


def test_torch_alone_is_installed_without_a_hash() -> None:
    """Expect that of torch and of the libraries that its builds for CUDA need."""
    assert "torch" not in locked("requirements.lock")
    assert all(re.match("torch|triton|nvidia-|cuda-", name) for name in locked("requirements-torch.lock"))
    installs = re.findall(r"^\t\$\(PIP\) (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert installs == [
        "--no-deps --require-hashes -r requirements.lock", "$(TORCH)", "--no-deps --no-build-isolation -e .",
    ]  # fmt: skip
