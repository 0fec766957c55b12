"""Parse the command line of benchmarks over one smollm2 student."""

from __future__ import annotations

import argparse

import torch

from safety_harness.registry.load import Student, load_registry


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows ``--student`` and ``--threads``."""
    parsed = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parsed.add_argument("--student", default="json")
    parsed.add_argument("--threads", type=int, default=1)
    return parsed


def chosen(options: argparse.Namespace) -> Student:
    """Set torch's number of threads, and return the chosen student."""
    torch.set_num_threads(options.threads)
    (student,) = load_registry().select(family="smollm2", students=[options.student])
    return student
