"""Write the packages of the environment that measured a run as a software bill of materials, in CycloneDX's format."""

from __future__ import annotations

import json
from urllib.parse import quote

from safety_harness.errors import DataError
from safety_harness.gate.results import RunResult

ENVIRONMENT = "environment"
"""The key of a run's provenance that holds the packages: name -> version."""


def sbom(result: RunResult) -> str:
    """Return the bill as JSON: the name, version and purl of each package. Equal environments give equal bills.

    It has no dependencies between packages, and no licences.

    Raises:
        DataError: the run recorded no packages: an earlier version measured it, or it merges runs of several machines.
    """
    packages = result.provenance.get(ENVIRONMENT)
    if not isinstance(packages, dict) or not packages:
        raise DataError("These results record no environment. Measure again, or ask for the bill of each merged run.")
    components = [
        {"type": "library", "bom-ref": purl, "name": name, "version": str(version), "purl": purl}
        for name, version in sorted(packages.items())
        for purl in [f"pkg:pypi/{quote(str(name))}@{quote(str(version), safe='')}"]
    ]
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}
    return json.dumps(bill, indent=1) + "\n"
