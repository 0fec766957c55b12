"""Run ``python -m safety_harness`` as the command ``safety-harness``."""

import sys

from safety_harness.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
