"""Start an engine that serves one model on this machine, wait until it answers, and end it with its children.

Its environment is its own: nothing of it is imported, and it is started without a shell.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from safety_harness.errors import ConfigError, SourceError, masked
from safety_harness.files import explain_disk_errors
from safety_harness.registry.backend import Backend
from safety_harness.registry.server import Served
from safety_harness.served import guard

HOST = "127.0.0.1"
SECONDS_BETWEEN_LOOKS, SECONDS_OF_A_LOOK = 0.5, 5.0
# The guard asks, waits and kills.
SECONDS_TO_END = guard.SECONDS_TO_END + 20
# They belong to the harness's Python, and would lead the engine's to its packages.
_OWN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "VIRTUAL_ENV")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
_LONGEST_LOG = 64 << 10


@dataclass(frozen=True)
class Engine:
    """An engine that answers: how it is asked, its version, and the log of one that was started."""

    server: Served
    version: str
    log: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def explained(self, error: SourceError) -> SourceError:
        """Return *error*, or why the engine has ended."""
        if self.process is None or self.log is None:
            return error
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may be just ending
            self.process.wait(SECONDS_BETWEEN_LOOKS)
        alive = self.process.poll() is None
        return SourceError(f"{error} {_last(self.log)}") if alive else _ended(self.process, self.log)


def check_backend(backend: Backend) -> None:
    """Check that the engine's program is there.

    Raises:
        ConfigError: it is not.
    """
    if not backend.url and shutil.which(backend.program[0]) is None:
        raise ConfigError(
            f"backend: there is no program {backend.program[0]!r}. Name it with `command` in the registry, such as "
            f'["/opt/{backend.kind}/bin/{backend.kind}", "serve"].'
        )


@contextlib.contextmanager
def running(backend: Backend, model: Path, dtype: str, log: Path) -> Iterator[Engine]:
    """Yield an engine that answers for the checkpoint *model*, and end it with the block. Its output goes to *log*.

    Raises:
        SourceError: it does not start, or does not answer in time.
    """
    if backend.url:
        yield Engine(_server(backend, backend.url, str(backend.model)), _version(backend, backend.url))
        return
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    url = f"http://{HOST}:{port}/v1"
    # Nobody else's engine has this name, should another one be at the port by then.
    name = f"safety-harness-{secrets.token_hex(8)}" if backend.kind == "vllm" else str(model)
    process = _start([*backend.program, *_arguments(backend, model, dtype, port, name), *backend.arguments], log)
    try:
        _wait(process, backend, url, log)
        yield Engine(_server(backend, url, name), _version(backend, url), log, process)
    finally:
        _end(process)


def _arguments(backend: Backend, model: Path, dtype: str, port: int, name: str) -> list[str]:
    """Return what either program has to be told."""
    shared = [str(model), "--host", HOST, "--port", str(port), "--dtype", dtype]
    # vLLM would take a repetition penalty and other habits from the model's generation_config.json.
    return shared if backend.kind != "vllm" else [*shared, "--served-model-name", name, "--generation-config", "vllm"]


def _server(backend: Backend, url: str, name: str) -> Served:
    return Served(url=url, model=name, concurrency=backend.concurrency, timeout=backend.timeout, retries=1)


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start *command* under a guard that ends it when this process ends, however that comes."""
    kept = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
    guarded = [sys.executable, "-I", str(guard.__file__), *command]
    with explain_disk_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch(mode=0o600)
        with log.open("wb") as output:
            return subprocess.Popen(
                guarded, env={**kept, **_OFFLINE}, stdin=subprocess.PIPE, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS_TO_END)
    process.kill()
    process.wait()


def _wait(process: subprocess.Popen[bytes], backend: Backend, url: str, log: Path) -> None:
    """Wait until the engine at *url* says that it is up.

    Raises:
        SourceError: it ended, or it takes too long.
    """
    until = time.monotonic() + backend.start_within
    while time.monotonic() < until:
        if process.poll() is not None:
            raise _ended(process, log)
        if _get(f"{url.removesuffix('/v1')}/health") is not None:
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise SourceError(
        f"The engine {backend.program[0]} does not answer within {backend.start_within:g} seconds (`start_within`). "
        f"{_last(log)}"
    )


def _version(backend: Backend, url: str) -> str:
    """Return the version of the engine, as it says itself, or as its program does; "unknown" where neither does."""
    said = _get(f"{url.removesuffix('/v1')}/version")
    if said is not None:
        with contextlib.suppress(ValueError):
            table = said.json()
            if isinstance(table, Mapping) and isinstance(version := table.get("version"), str):
                return version[:40]
    if backend.kind == "transformers" and not backend.url:
        with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
            asked: Any = {"capture_output": True, "text": True, "check": True, "timeout": 60}
            return str(subprocess.run([backend.program[0], "version"], **asked).stdout.split()[-1])[:40]
    return "unknown"


def _get(url: str) -> httpx2.Response | None:
    """Return the response of *url*, or None if it is none of success. No proxy stands between."""
    try:
        response = httpx2.get(url, timeout=SECONDS_OF_A_LOOK, trust_env=False)
    except (httpx2.HTTPError, OSError):
        return None
    return response if response.status_code == 200 else None


def _ended(process: subprocess.Popen[bytes], log: Path) -> SourceError:
    return SourceError(f"The engine ended with exit code {process.returncode}. {_last(log)}")


def _last(log: Path) -> str:
    """Return in one line what an engine said last of an error, and where the rest is."""
    with contextlib.suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _LONGEST_LOG))
        lines = [line.strip() for line in stream.read().decode("utf-8", "replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line] or lines
        if errors:
            return f"It said: {ascii(masked(errors[-1])[-200:])[1:-1]}. Its log: {log}"
    return f"It said nothing. Its log: {log}"
