"""Run workers on other hosts through xdist's proxies: refuse what cannot work, compare the hosts, outlive a lost one.

xdist sends a worker to another host by ``--px "id=a//ssh=HOST//…" --tx "8*popen//via=a" -d``. docs/scale.md says how.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from safety_harness.errors import masked
from safety_harness.plugin import alike
from safety_harness.plugin.workers import free_cores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECIPE = (
    f'--px "id=a//ssh=HOST//python={sys.executable}//chdir={Path.cwd()}//execmodel=thread" --tx "8*popen//via=a" -d '
    "(docs/scale.md)"
)
# A host that vanishes says nothing: ssh has to notice it, and must not wait for a password.
_SSH = "-o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
RESTARTS = 4
"""Workers that are replaced for each worker of the run, as xdist counts with -n. With --tx it would go on for ever."""
CARRIED = ("SAFETY_HARNESS_", "HF_", "VLLM_")
"""How variables begin that workers on other hosts get too: caches, hubs and engines. ssh takes none along."""
# Runs in a proxy's process. xdist gives its workers the same search path.
_LOOK = """
import sys
sys.path[:] = channel.receive()
from safety_harness.plugin.hosts import look
channel.send(look(*channel.receive()))
"""


def is_distributed(config: pytest.Config) -> bool:
    """Return whether tests run in workers of xdist, and not in this process."""
    return config.getoption("dist", "no") != "no" and bool(config.getoption("tx", None))


def look(folder: str, wanted: Mapping[str, Any]) -> tuple[str, int]:
    """Return what this host has otherwise than the machine of *folder* and *wanted*, and how many cores are idle."""
    if (here := str(Path.cwd())) != folder:
        return f"works in {here}, and the run in {folder}. Give it chdir={folder}.", 0
    return alike.fault(wanted), free_cores()


def check_specs(config: pytest.Config) -> bool:
    """Return whether workers of this run are on other hosts, or behind a proxy. Give ssh its time limits.

    Raises:
        UsageError: the command line names workers in a way that xdist passes over, or that ends in a traceback.
    """
    from xdist.workermanage import parse_tx_spec_config

    proxies = {spec.id: spec for spec in map(_spec, config.getoption("px", None) or ())}
    given = _tx_of(config)
    if not is_distributed(config):
        if proxies or given:
            raise pytest.UsageError(f"--px and --tx do nothing without -d, or beside -n 0. Write {RECIPE}.")
        return False
    workers = [_spec(spec) for spec in parse_tx_spec_config(config)]
    if proxies and not any(spec.via for spec in workers):
        raise pytest.UsageError(f"--px: no worker is behind a proxy; -n leaves --tx out. Write {RECIPE}.")
    for spec in workers:
        if spec.socket or (spec.via in proxies and proxies[spec.via].socket):
            raise pytest.UsageError(f"{spec}: an execnet socket server runs whatever connects to it. Write {RECIPE}.")
        if (not spec.popen or spec.chdir) and not config.option.rsyncdir:
            raise pytest.UsageError(f"--tx {spec}: xdist cannot send it these suites. Write {RECIPE}.")
        if spec.via and spec.via not in proxies:
            raise pytest.UsageError(f"--tx {spec}: no --px has the id {spec.via}. Write {RECIPE}.")
        if spec.via and proxies[spec.via].execmodel != "thread":
            raise pytest.UsageError(f"--px {proxies[spec.via]}: needs execmodel=thread. Write {RECIPE}.")
    config.option.px = [_with_time_limits(spec) for spec in config.getoption("px", None) or ()]
    return any(spec.via for spec in workers)


def _spec(text: str) -> Any:
    """Return what execnet reads in a specification.

    Raises:
        UsageError: it cannot be read.
    """
    import execnet

    try:
        return execnet.XSpec(text)
    except (ValueError, AttributeError, IndexError) as error:
        raise pytest.UsageError(f"--tx, --px: {text!r} cannot be read ({error}). Write {RECIPE}.") from error


def _with_time_limits(proxy: str) -> str:
    """Return the specification of a *proxy*, with limits for its ssh. Its own options come first, and win."""
    parts = proxy.split("//")
    for at, part in enumerate(parts):
        if part.startswith("ssh="):
            options, _, host = part.removeprefix("ssh=").strip().rpartition(" ")
            parts[at] = f"ssh={f'{options} {_SSH}'.strip()} {host}"
    return "//".join(parts)


def _tx_of(config: pytest.Config) -> bool:
    """Return whether the command line has --tx: -n 0 empties what xdist keeps of it."""
    return any(str(argument).startswith("--tx") for argument in config.invocation_params.args)


class Hosts:
    """The plugin of the controller of a run on other hosts.

    All hosts must have the same *files*. *variables* are carried to them in addition to ``CARRIED``.
    """

    def __init__(self, files: Iterable[Path], variables: Collection[str] = ()) -> None:
        self._files = tuple(files)
        self._variables = variables
        self._wanted: Mapping[str, Any] | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionstart(self, session: pytest.Session) -> Generator[None]:
        """Go on without a worker that cannot be replaced, and say in one line which host cannot be reached.

        Raises:
            UsageError: a host cannot be reached.
        """
        from execnet import gateway_io
        from execnet.gateway_base import RemoteError
        from execnet.gateway_bootstrap import HostNotFound
        from xdist.workermanage import parse_tx_spec_config

        gateway_io.ProxyIO._controll = _controlled  # type: ignore[method-assign,assignment]
        distributed: Any = session.config.pluginmanager.get_plugin("dsession")
        distributed._clone_node = _replacing(session.config)
        if distributed._max_worker_restart is None:
            distributed._max_worker_restart = RESTARTS * len(parse_tx_spec_config(session.config))
        try:
            return (yield)
        except (HostNotFound, RemoteError, EOFError, OSError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise pytest.UsageError(
                f"A host of --px cannot run workers ({masked(lines[-1])}). Try ssh to it."
            ) from error

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: Sequence[Any]) -> None:
        """Give workers on other hosts the variables of this process that decide what a run finds."""
        carried = {
            name: value for name, value in os.environ.items() if name.startswith(CARRIED) or name in self._variables
        }
        for spec in specs:
            if spec.via:
                spec.env = {**carried, **spec.env}

    def cores_of(self, node: Any) -> int:
        """Return how many cores are idle on the host of *node*, a worker that is about to begin.

        Raises:
            UsageError: the host has other packages, other code or other files.
        """
        self._wanted = self._wanted or alike.described(self._files)
        proxy = node.gateway.spec.via
        channel = node.nodemanager.group[proxy].remote_exec(_LOOK)
        channel.send(list(sys.path))
        channel.send((str(Path.cwd()), self._wanted))
        trouble, cores = channel.receive()
        if trouble:
            raise pytest.UsageError(f"--px: the host of proxy {proxy}: {trouble}")
        return int(cores)


def _replacing(config: pytest.Config) -> Any:
    """Return xdist's way to replace a crashed worker, which no longer ends the run where its host is lost."""
    session: Any = config.pluginmanager.get_plugin("dsession")
    replace = session._clone_node

    def replaced(node: Any) -> Any:
        try:
            return replace(node)
        except Exception as error:  # of execnet, of ssh, or of the look at the host
            session.report_line(f"\nThe host of proxy {node.gateway.spec.via} is lost ({masked(str(error))})")
            if all(other.shutting_down for other in session._active_nodes - {node}):
                session.triggershutdown()  # or xdist would break off with an error of its own
            return None

    return replaced


def _controlled(proxied: Any, event: int) -> Any:
    """Tell a worker's proxy to wait for it or to end it, as execnet does. Where the proxy is lost, do nothing.

    The worker ends with its proxy. execnet would raise an error here, when the run ends, and break that.
    """
    from execnet.gateway_base import RemoteError

    try:
        proxied.controlchan.send(event)
        return proxied.controlchan.receive()
    except (OSError, EOFError, RemoteError):
        return None
