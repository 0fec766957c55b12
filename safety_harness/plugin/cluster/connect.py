"""Connect to a Ray cluster within a time limit, and refuse one that runs anybody's code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

from safety_harness.errors import ConfigError, missing_extra

# Ray tries without end where nothing answers.
SECONDS_TO_CONNECT = 25
SECONDS_TO_REACH = 5
_TOKEN = (
    "`ray get-auth-token --generate` makes a token in ~/.ray/auth_token. Copy it to every node, and start them with "
    "RAY_AUTH_MODE=token"
)


def connect(address: str, *, insecure: bool) -> None:
    """Make this process a driver of the cluster at *address*.

    Raises:
        HarnessError: Ray is not installed, the address is none or does not answer, Ray or Python is another version
            there, the token is wrong or missing. Or the cluster asks for no token, and that is not said to be wanted
            (*insecure*).
    """
    try:
        metadata.version("ray")
    except metadata.PackageNotFoundError:
        raise missing_extra("Ray", "ray", "--gate-ray") from None
    address = _cluster_here() if address == "auto" else address
    _reach(address)
    if not insecure:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if failed := _failure_within(SECONDS_TO_CONNECT, lambda: _init(address)):
        raise ConfigError(f"--gate-ray {address}: {_advice(failed)}") from None
    if not insecure:
        import ray

        _require_token(ray.get_runtime_context().gcs_address)


def _cluster_here() -> str:
    """Return the address of the cluster that this machine is a node of.

    Raises:
        ConfigError: it is a node of none, or of several.
    """
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        return str(canonicalize_bootstrap_address_or_die("auto"))
    except ConnectionError as error:
        said = str(error).partition(" Please ")[0]
        raise ConfigError(f"--gate-ray auto: {said} Start one here (`ray start`), or give HOST:PORT.") from error


def _reach(address: str) -> None:
    """Check that something listens at *address*.

    Raises:
        ConfigError: it is no HOST:PORT, or nothing does.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise ConfigError(
            f"--gate-ray {address}: is no HOST:PORT. Give the address that `ray start --head` printed, or auto for a "
            "cluster that this machine is a node of; run on a node, as there is no way through ray://."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_REACH).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--gate-ray {address}: does not answer ({reason}). Check the address, and that Ray runs there "
            "(`ray start --head`)."
        ) from error


def _init(address: str) -> None:
    """Connect. A wrong token is an error at once, for which ray.init alone takes 20 s and as many lines."""
    import ray

    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    # Without a token, where one is wanted, this client would end the process.
    if os.environ.get("RAY_AUTH_TOKEN") or token.is_file():
        ray._raylet.GcsClient(address=address)
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")


def _failure_within(seconds: float, work: Any) -> BaseException | None:
    """Do *work* in a thread. Return what it raised, a TimeoutError if it does not end, or None if all is well."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # for the thread that waits
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return TimeoutError() if thread.is_alive() else next(iter(raised), None)


def _advice(error: BaseException) -> str:
    """Return in one line why no connection came about, and the way out."""
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError) or "No node info" in text:
        return (
            f"did not let this machine in within {SECONDS_TO_CONNECT} s. Run on a node of the cluster, and give the "
            "address that `ray start --head` printed: Ray takes 127.0.0.1 for this machine's address in its network"
        )
    if "ersion mismatch" in text:
        return f"runs another Ray or Python than this machine. Use the same versions everywhere. ({text[:300]})"
    if isinstance(error, ConnectionError) or "oken" in text:
        return (
            f"does not accept this machine's token, or there is none. {_TOKEN}. For a cluster without tokens give "
            "--gate-ray-insecure"
        )
    return f"no connection ({type(error).__name__}: {text[:300]})"


def _require_token(address: str) -> None:
    """Check that the cluster lets nobody in without a token.

    Raises:
        ConfigError: it does, or that cannot be found out.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    try:
        done = subprocess.run(
            command, env={**stranger, "RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True, check=False,
            timeout=SECONDS_TO_CONNECT,
        )  # fmt: skip
        refused = "AuthenticationError" in done.stderr + done.stdout
        found = "lets anybody in without a token, and whoever gets in runs code on its nodes" if not refused else ""
        if not refused and done.returncode:
            found = f"cannot be asked whether it wants a token ({done.stderr.strip()[-200:]})"
    except subprocess.TimeoutExpired:
        found = "did not say whether it wants a token"
    if found:
        raise ConfigError(
            f"--gate-ray {address}: {found}. {_TOKEN}. On a network that nobody else reaches, --gate-ray-insecure "
            "gates without."
        )
