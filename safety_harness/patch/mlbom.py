"""Write what a patched model is made of as a CycloneDX ML-BOM: its student, teacher, and what the gate measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safety_harness.patch.manifest import Manifest, Origin
from safety_harness.patch.metrics import Metric, metrics


def ml_bom(manifest: Manifest) -> str:
    """Return the bill as JSON of CycloneDX 1.6. Equal manifests give equal bills."""
    origins = {"student": manifest.student, "teacher": manifest.teacher, "ancestor": manifest.ancestor}
    parts = [_model(role, origin) for role, origin in origins.items() if origin]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": manifest.created,
            "tools": {"components": [{"type": "application", "name": manifest.tool}]},
            "component": _patched(manifest),
        },
        "components": parts,
        "dependencies": [{"ref": "patched", "dependsOn": [part["bom-ref"] for part in parts]}],
    }
    return json.dumps(bill, indent=1) + "\n"


def _patched(manifest: Manifest) -> dict[str, Any]:
    """Return the patched model with its model card."""
    gate = manifest.gate
    outcome = gate.outcome.value if gate else "no gate has seen this patch"
    return {
        "type": "machine-learning-model",
        "bom-ref": "patched",
        "name": f"{manifest.search.student}, patched",
        "version": manifest.search.key,
        "modelCard": {
            "modelParameters": {"modelArchitecture": manifest.student.architecture},
            "quantitativeAnalysis": {"performanceMetrics": [_metric(one) for one in metrics(manifest)]},
            "considerations": {"technicalLimitations": list(manifest.not_shown)},
        },
        "properties": [
            {"name": "safety-harness:gate", "value": outcome},
            *({"name": "safety-harness:reason", "value": reason} for reason in (gate.reasons if gate else ())),
        ],
    }


def _metric(one: Metric) -> dict[str, Any]:
    bounds = one.interval and {"lowerBound": f"{one.interval[0]:.6g}", "upperBound": f"{one.interval[1]:.6g}"}
    facts = {"type": one.name, "value": f"{one.value:.6g}", "slice": _slice(one), "confidenceInterval": bounds}
    return {name: fact for name, fact in facts.items() if fact}


def _slice(one: Metric) -> str:
    return f"{one.questions}, sha256 {one.sha256}" if one.sha256 else one.questions


def _model(role: str, origin: Origin) -> dict[str, Any]:
    """Return a model that numbers come from, with the digest of each of its files."""
    facts: Mapping[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": role,
        "name": origin.repository or origin.source,
        "version": origin.revision,
        "description": f"the {role}",
        "licenses": [{"license": {"name": origin.licence}}] if origin.licence else None,
        "components": [
            {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for name, digest in origin.files.items()
        ],
    }
    return {name: fact for name, fact in facts.items() if fact}
