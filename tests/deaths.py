"""Kill a process at every change that it makes to the disk, and in the midst of a write."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import count

_CHANGES = {f"os.{name}" for name in ("rename", "remove", "rmdir", "mkdir", "link", "symlink", "chmod", "truncate")}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Action = Callable[[], object]


def deaths(action: Action, *, every: int = 1) -> Iterator[int]:
    """Run *action* in a fork that dies before its first change of the disk, in another that dies before its second, ...

    Yields the number of each change after the death. Ends with the first fork that lives to its end, which is not
    yielded. With *every*, only each such change is tried.
    """
    for at in count(every, every):
        if not _died(action, lambda at=at: _die_at(at), signal.SIGKILL):
            return
        yield at


def died_in_write(action: Action, size: int) -> bool:
    """Run *action* in a fork that dies when it writes beyond *size* bytes of a file; False: it lived to its end."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

    return _died(action, limit, signal.SIGXFSZ)


def _died(action: Action, prepare: Action, by: signal.Signals) -> bool:
    child = os.fork()
    if child == 0:
        try:
            prepare()
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -by), f"the process ended with {code}"
    return code != 0


def _die_at(at: int) -> None:
    """Kill this process before its change of the disk number *at*: its calls that open, name, remove or sync files."""
    left = at

    def change() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(flags := arguments[2], int) and flags & _WRITING):
            change()

    sync = os.fsync

    def fsync(handle: int) -> None:
        change()
        sync(handle)

    os.fsync = fsync
    sys.addaudithook(hook)
