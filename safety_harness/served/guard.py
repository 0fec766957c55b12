"""Run a program until standard input ends, then end it with all of its children: ``python guard.py PROGRAM …``.

Whoever starts it holds the other end of that input, so the program ends with its owner, however that one ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading

import psutil

SECONDS_TO_END = 10.0


def end(process: subprocess.Popen[bytes]) -> None:
    """End *process* with its children: ask first, and kill what is left after a while."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        own = psutil.Process(process.pid)
        family = [own, *own.children(recursive=True)]
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.terminate()
    _, alive = psutil.wait_procs(family, timeout=SECONDS_TO_END)
    for each in alive:
        with contextlib.suppress(psutil.Error):
            each.kill()
    if os.name == "posix":  # children whose parent was gone already
        with contextlib.suppress(OSError):
            os.killpg(process.pid, 9)


def main(command: list[str]) -> int:
    """Run *command* until it ends or standard input does, and return its exit code."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    ending = threading.Lock()

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):  # not through sys.stdin, whose lock would break the end of this process
                pass
        with ending:
            end(process)

    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    with ending:  # children that outlive the program are the other thread's to kill
        end(process)
    return code if code >= 0 else 128 - code  # as a shell tells of a signal


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error.strerror or error}")
