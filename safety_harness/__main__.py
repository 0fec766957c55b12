"""Run ``python -m safety_harness`` as the command ``safety-harness``."""

import sys

from safety_harness.cli.main import main

sys.exit(main())
