"""Restore a language model's refusals with the smallest set of an aligned teacher's weights, and gate its release."""

from __future__ import annotations

__version__ = "0.1.0"
