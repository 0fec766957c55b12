"""Carry live lines, journals and patches between tasks and the controller, whose disks need not be the same.

Each side keeps a search's files in its own cache. A task tells its journal's text once a second. Before it looks into
its cache, it fetches what the controller's cache holds: of an attempt that died, or of an earlier run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from safety_harness.files import cache_dir, write_whole
from safety_harness.patch.record import FILE, fetchers, patch_folder

SECONDS_BETWEEN = 1.0
SECONDS_TO_FETCH = 30
_KEY = re.compile(r"[0-9a-f]{32}")
# Names come from other machines: none leads out of the cache.
_NAME = re.compile(rf"([0-9a-f]{{32}})(\.[0-9a-f]{{8}}\.journal|/{re.escape(FILE)})")


def files_of(key: str) -> dict[str, str]:
    """Return what this machine's cache holds of the search with this *key*: name -> text."""
    folder = patch_folder(key)
    if not _KEY.fullmatch(key):
        return {}
    return {
        str(file.relative_to(folder.parent)): file.read_text(encoding="utf-8")
        for file in (*folder.parent.glob(f"{key}.*.journal"), folder / FILE)
        if file.is_file()
    }


def keep(files: Mapping[str, str]) -> None:
    """Write *files* of another machine's cache into this one's, unless it has more. A patch ends its journals.

    Raises:
        HarnessError: the cache cannot be written.
    """
    for name, text in files.items():
        if not (match := _NAME.fullmatch(name)):
            continue
        folder = patch_folder(match[1])
        path = folder.parent / name
        if (folder / FILE).exists() or (path.exists() and path.stat().st_size >= len(text.encode())):
            continue
        write_whole(path, text)
        if path.name == FILE:
            for journal in folder.parent.glob(f"{folder.name}.*.journal"):
                journal.unlink(missing_ok=True)


@contextlib.contextmanager
def marked_cache() -> Iterator[str]:
    """Leave a mark in this machine's cache while the block runs, and yield its name: a shared disk shows it."""
    mark = cache_dir() / f".ray-{uuid.uuid4().hex}"
    with contextlib.suppress(OSError):  # a run that searches nothing needs no cache
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)


class Exchange:
    """An actor on the controller's node: tasks tell and fetch, and the controller trades once a second."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._asking: dict[str, list[asyncio.Future[str]]] = {}

    async def tell(self, task: str, line: str, files: str) -> None:
        """Take a task's live line and its changed *files*."""
        self._lines[task] = line
        self._files |= json.loads(files)

    async def fetch(self, key: str) -> str:
        """Return the controller's files of a search, once it has been asked for them."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asking.setdefault(key, []).append(answer)
        return await answer

    async def trade(self, found: str) -> str:
        """Give *found* (key -> files) to those who asked. Return what was told since, and which keys are asked for."""
        for key, files in json.loads(found).items():
            for answer in self._asking.pop(key, ()):
                if not answer.done():
                    answer.set_result(json.dumps(files))
        told = {"lines": self._lines, "files": self._files, "asked": list(self._asking)}
        self._lines, self._files = {}, {}
        return json.dumps(told)


class Mirror(contextlib.AbstractContextManager["Mirror"]):
    """In a task: tell what this process is busy with and writes, once a second."""

    def __init__(self, exchange: Any, task: str, lines: Path, *, shared: bool) -> None:
        """Prepare to tell *exchange* of *task*: its line in the folder *lines*, and files if no disk is *shared*."""
        self._exchange, self._task, self._lines, self._shared = exchange, task, lines, shared
        self._keys: list[str] = []
        self._told: dict[str, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        fetchers.append(self._fetch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        fetchers.remove(self._fetch)
        self._ended.set()
        self._thread.join()

    def files(self) -> dict[str, str]:
        """Return the files of the searches of this task."""
        return {} if self._shared else {name: text for key in self._keys for name, text in files_of(key).items()}

    def _fetch(self, folder: Path) -> None:
        """Bring what the controller has of a search into this machine's cache."""
        self._keys.append(folder.name)
        if not self._shared:
            import ray

            with contextlib.suppress(ray.exceptions.RayError):  # without it, the search begins anew
                keep(json.loads(ray.get(self._exchange.fetch.remote(folder.name), timeout=SECONDS_TO_FETCH)))

    def _run(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            with contextlib.suppress(Exception):  # no task may fail because its line cannot be shown
                line = next((file.read_text("utf-8") for file in self._lines.glob("*.json")), "")
                changed = {name: text for name, text in self.files().items() if self._told.get(name) != text}
                self._exchange.tell.remote(self._task, line, json.dumps(changed))
                self._told |= changed
