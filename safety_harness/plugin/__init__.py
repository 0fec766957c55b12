"""Be pytest's front door: the options ``--gate-…``, the fixtures ``gate_…``, and whether a run is a release gate.

A run that is no gate meets nothing else of this package. What acts on a run is in :mod:`safety_harness.plugin.gated`,
and the fixtures with plain names are in :mod:`safety_harness.plugin.names`: a gate alone registers both.
``suites/conftest.py`` makes a run a gate, and so does an option that names what to gate.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from safety_harness.plugin import options
from safety_harness.plugin.fixtures import (
    gate_attack,
    gate_measure,
    gate_patch,
    gate_student,
    gate_subject,
    gate_teacher,
)
from safety_harness.registry.options import PREFIX, settings_options

__all__ = ["gate_attack", "gate_measure", "gate_patch", "gate_student", "gate_subject", "gate_teacher"]

SUITES = "safety_harness.suites"
GATE = "safety-harness-gate"
GROUP = "safety-harness"


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser.getgroup(GROUP, "release gate for language models"))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: Sequence[str]) -> None:
    """Add the options of the settings where somebody asks for them: what they are made of is slow to import."""
    if early_config.known_args_namespace.help or any(argument.startswith(PREFIX) for argument in args):
        options.add_options(parser.getgroup(GROUP), settings_options())


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    _open_gate(config)


@pytest.hookimpl(trylast=True)  # after a conftest may have marked the run
def pytest_configure(config: pytest.Config) -> None:
    _open_gate(config)


@pytest.hookimpl(optionalhook=True, tryfirst=True)  # before xdist's own count
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return the number of workers for ``-n auto`` in a gate. xdist may ask before any of our other hooks."""
    if not _open_gate(config):
        return None
    from safety_harness.plugin import gated

    return gated.affordable_workers(config)


def _open_gate(config: pytest.Config) -> bool:
    """Return whether the run is a gate. If so, register what acts on it, once.

    Raises:
        UsageError: an option keeps it out, or the suites are not there.
    """
    # The suites' conftest.py may come too late to mark the run: pytest reads it only on collection if the suites lie
    # below the folder that it was given.
    if options.names_students(config) or _names_packaged_suites(config):
        config.option.safety_suites = True
    if not config.option.safety_suites:
        return False
    if not config.pluginmanager.has_plugin(GATE):
        if not config.option.pyargs:
            _require_suites(config)
        from safety_harness.plugin import gated, names

        for plugin, name in ((gated, GATE), (names, "safety-harness-names")):
            if config.pluginmanager.register(plugin, name) is None:
                raise pytest.UsageError(f"-p no:{name}: without it nothing is gated. Leave the option out.")
    return True


def _require_suites(config: pytest.Config) -> None:
    """Refuse a folder of suites that is not there. With workers pytest would say for a minute nothing, and end with 5.

    Raises:
        UsageError: it is not there.
    """
    for argument in config.args:
        if not (config.invocation_params.dir / argument.partition("::")[0]).exists():
            raise pytest.UsageError(
                f"{argument}: no such file or folder. In a clone, run in its top folder. Anywhere else the suites are "
                f"those of the package: pytest --pyargs {SUITES}"
            )


def _names_packaged_suites(config: pytest.Config) -> bool:
    """Return whether ``--pyargs`` names the suites of the package, whose conftest.py is read during collection only."""
    modules = [argument.partition("::")[0] for argument in config.args] if config.option.pyargs else []
    return any(module in ("safety_harness", SUITES) or module.startswith(f"{SUITES}.") for module in modules)
