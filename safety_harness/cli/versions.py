"""Say with which versions a gate is set up, so that a job elsewhere measures with the same ones."""

from __future__ import annotations

import json
import re
from importlib import metadata

from safety_harness import __version__

PACKAGE = "safety-harness"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
HEAD = "# What this gate was set up with, for `pip install --constraint`. Written by `safety-harness init`.\n"


def constraints() -> str:
    """Return a pin for every installed package that the harness and its extras need, directly or not.

    What names a build of its own, as ``2.9.0+cpu``, is pinned to the version: each index has other builds.
    """
    pins: dict[str, str] = {}
    waiting = [PACKAGE]
    while waiting:
        name = waiting.pop()
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of an extra, or of another platform
            continue
        for requirement in found.requires or []:
            needed = _NAME.match(requirement)
            # Extras of this package are for its users; those of other packages are not.
            wanted = "extra ==" not in requirement or (name == PACKAGE and "dev" not in requirement)
            if needed and wanted and (key := _normal(needed[0])) not in pins:
                pins[key] = ""
                waiting.append(key)
        if name != PACKAGE:
            pins[name] = found.version.partition("+")[0]
    return HEAD + "".join(
        f"{name}=={version}\n" for name, version in sorted(pins.items()) if version and name != PACKAGE
    )


def package() -> str:
    """Return the requirement by which pip gets this package again: from where it came, or else by its version."""
    try:
        origin = json.loads(metadata.distribution(PACKAGE).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        origin = {}
    vcs = origin.get("vcs_info")
    if isinstance(vcs, dict):
        return f"{PACKAGE}[all] @ {vcs['vcs']}+{origin['url']}@{vcs['commit_id']}"
    return f"{PACKAGE}[all]=={__version__}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
