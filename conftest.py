"""Register Hypothesis' profiles. Options and fixtures belong to the plugin."""

from __future__ import annotations

import os
from importlib.util import find_spec

# Hypothesis is of the dev extra: a clone without it runs the suites.
if find_spec("hypothesis"):
    from hypothesis import settings

    settings.register_profile("default", deadline=None)
    settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
    settings.register_profile("thorough", deadline=None, max_examples=2_000)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))
