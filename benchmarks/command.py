"""The command line of benchmarks over one smollm2 student."""

from __future__ import annotations

import argparse

import torch

from safety_harness.registry.load import Student, load_registry


def parser(about: str | None) -> argparse.ArgumentParser:
    """One that knows ``--student`` and ``--threads``."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--student", default="json")
    made.add_argument("--threads", type=int, default=1)
    return made


def chosen(options: argparse.Namespace) -> Student:
    """The student that was asked for, once torch keeps to the threads that were."""
    torch.set_num_threads(options.threads)
    (student,) = load_registry().select(family="smollm2", students=[options.student])
    return student
