"""Cut a file into units and ask a script as oracle: the convention that line reducers share.

The script is run with the path of a candidate file as its last argument, in an empty directory of its own. Exit
code 0 says that the candidate still does what matters.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from safety_harness.ddmin.errors import ArgumentError, Unresolved


def pieces(content: bytes, separator: bytes) -> list[bytes]:
    """Cut the content after every separator, or after every byte if the separator is empty. Nothing is lost."""
    if not separator:
        return [content[i : i + 1] for i in range(len(content))]
    cut = [piece + separator for piece in content.split(separator)]
    cut[-1] = cut[-1][: -len(separator)]
    return cut if cut[-1] else cut[:-1]


class Script:
    """An oracle over positions in `parts` that writes the candidate and runs a command on it. Exit code 0 is true.

    name: the candidate file's name. seconds: a run that takes longer has no answer. It is killed, together with the
    processes that it started.
    """

    def __init__(self, command: Sequence[str], parts: Sequence[bytes], name: str, seconds: float | None = None) -> None:
        # Each run has a folder of its own, where a path relative to this one would lead nowhere.
        self._command = [*map(_absolute, command)]
        self._parts = parts
        self._name = name
        self._seconds = seconds

    def __call__(self, kept: tuple[int, ...]) -> bool:
        with tempfile.TemporaryDirectory(prefix="reduce-", ignore_cleanup_errors=True) as folder:
            candidate = Path(folder, self._name)
            candidate.write_bytes(b"".join(self._parts[i] for i in kept))
            return self._run([*self._command, str(candidate)], folder) == 0

    def fingerprint(self) -> str:
        """Hash what the answers depend on: the command, every file that it names, the time limit, the pieces."""
        texts = [Path(part).read_bytes() for part in self._command if _is_file(part)]
        digest = hashlib.sha256(repr((self._command, texts, self._name, self._seconds)).encode())
        for part in self._parts:
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()

    def _run(self, command: list[str], folder: str) -> int:
        """Return the command's exit code. Raises Unresolved after the time limit, ArgumentError if it cannot start."""
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a group of its own, so that all of it can be killed
            )
        except OSError as error:
            raise ArgumentError(f"{command[0]} cannot be run: {error.strerror}; is it executable?") from error
        try:
            return process.wait(self._seconds)
        except subprocess.TimeoutExpired as error:
            raise Unresolved(f"no answer within {self._seconds} s") from error
        finally:
            if process.poll() is None:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and, where the system has process groups, whatever it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _absolute(part: str) -> str:
    """Return a file's absolute path, and any other part of a command as it is."""
    return str(Path(part).resolve()) if _is_file(part) else part


def _is_file(part: str) -> bool:
    """Return whether a part of a command is the path of a file."""
    try:
        return Path(part).is_file()
    except OSError:  # a text that is too long for a name
        return False
