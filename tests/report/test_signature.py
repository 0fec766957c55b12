"""The recipe of docs/releasing.md: an ssh key signs a results.json, and a changed file or another signer is seen."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.samples import run_result, sample_checks

KEYGEN = shutil.which("ssh-keygen")
pytestmark = pytest.mark.skipif(not KEYGEN, reason="needs ssh-keygen")


def keygen(*arguments: str, text: str = "") -> bool:
    """Run ssh-keygen, and return whether it succeeded."""
    done = subprocess.run([str(KEYGEN), *arguments], input=text.encode(), capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def test_an_ssh_key_signs_and_verifies_results(tmp_path: Path) -> None:
    results, key, signers = tmp_path / "results.json", tmp_path / "key", tmp_path / "signers"
    results.write_text(run_result({"a/one": sample_checks()}).to_json())
    assert keygen("-q", "-t", "ed25519", "-N", "", "-f", str(key))
    assert keygen("-Y", "sign", "-f", str(key), "-n", "safety-harness", str(results))
    signers.write_text(f"reviewer@example.org {key.with_suffix('.pub').read_text()}")

    def verified(text: str, who: str = "reviewer@example.org", what: str = "safety-harness") -> bool:
        signed = ("-s", f"{results}.sig")
        return keygen("-Y", "verify", "-f", str(signers), "-I", who, "-n", what, *signed, text=text)

    text = results.read_text()
    assert verified(text)
    assert not verified(text.replace("pass", "fail", 1))
    assert not verified(text, who="somebody@example.org")
    assert not verified(text, what="another-purpose")
