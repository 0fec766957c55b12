"""Ask the questions of one search in several processes, so that likely later ones are answered ahead.

Each process holds a copy of the student. The process of the search is one of them, and alone decides. An answer does
not depend on the process that gives it, so the patch is that of a search on its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from safety_harness.errors import VoidProbe, remark
from safety_harness.evaluation.gpus import VISIBLE, visible_gpus

if TYPE_CHECKING:
    from safety_harness.evaluation.evaluator import Evaluator
    from safety_harness.evaluation.oracle import Losses, Oracle, Probe
    from safety_harness.gate.records import Budgets
    from safety_harness.registry.load import Student
    from safety_harness.weights.units import Unit

# A process that takes longer to end is in the middle of a probe that nobody waits for.
SECONDS_TO_END = 2.0


class ProberError(Exception):
    """The process cannot answer any more. The message says why."""


class Prober:
    """A process that loads a copy of *student* and answers probes, with so many *threads*.

    *gpu* is the one GPU that it sees, in the words of CUDA_VISIBLE_DEVICES; None where there is no GPU.
    """

    def __init__(self, student: Student, gpu: str | None, threads: int) -> None:
        # A fork would inherit torch's threads and the GPU's state, broken.
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, student, gpu, threads), daemon=True)
        self._process.start()
        theirs.close()  # the connection then ends with the process

    def identity(self) -> dict[str, object]:
        """Wait until the copy is loaded, and return what its measurements depend on.

        Raises:
            ProberError: it could not be loaded.
        """
        identity: dict[str, object] = self._received()
        return identity

    def probe(self, units: Sequence[Unit], budgets: Budgets, losses: Losses, batch_size: int) -> Probe:
        """Return the answer about *units*. Questions with the most *losses* are asked first.

        Raises:
            ProberError: the process died, ran into an error, or no longer asks *batch_size* questions at once.
            VoidProbe: too many answers are unscored.
        """
        with self._explained():
            self._connection.send((tuple(units), budgets, losses))
        answer, size = self._received()
        if size != batch_size:  # in bfloat16 an answer depends on its batch
            raise ProberError(f"it asks {size} questions at once, and the search {batch_size}")
        if isinstance(answer, VoidProbe):
            raise answer
        probe: Probe = answer
        return probe

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.terminate()
        self._process.join(SECONDS_TO_END)
        self._process.kill()
        self._process.join()

    def _received(self) -> Any:
        """Return what the process sends next.

        Raises:
            ProberError: it sends nothing more, or why it cannot answer.
        """
        with self._explained():
            received = self._connection.recv()
        if isinstance(received, ProberError):
            raise received
        return received

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the end of the connection into an error that says how the process ended.

        Raises:
            ProberError: the connection ended.
        """
        try:
            yield
        except (EOFError, OSError) as error:
            self._process.join(SECONDS_TO_END)
            raise ProberError(f"its process ended with code {self._process.exitcode}") from error


class Probers:
    """This process and *ahead* - 1 others, which answer probes of one student. Enter it to start them.

    A process that dies, cannot load the student or measures something else is left out, with a remark.
    """

    def __init__(self, evaluator: Evaluator, oracle: Oracle, ahead: int) -> None:
        self._evaluator = evaluator
        self._oracle = oracle
        self._ahead = ahead
        self._free: queue.SimpleQueue[Prober | None] = queue.SimpleQueue()
        self._free.put(None)  # this process
        self._left: list[Prober] = []  # those that load, or answer
        self._ready: list[Prober] = []
        self._lost: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ending = False

    def __enter__(self) -> Probers:
        gpus = [gpu.id for gpu in visible_gpus()]
        for number in range(1, self._ahead):
            gpu = gpus[number % len(gpus)] if gpus else None
            try:
                self._left.append(Prober(self._evaluator.student, gpu, self.threads))
            except OSError as error:
                self._lose(None, f"it cannot be started ({error.strerror or error})")
        self._probers = tuple(self._left)
        self._waiting = [threading.Thread(target=self._admit, args=(prober,)) for prober in self._probers]
        for thread in self._waiting:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        for prober in self._probers:
            prober.end()
        for thread in self._waiting:
            thread.join()
        self._say_lost()

    @property
    def threads(self) -> int:
        """How many threads each process gets."""
        import torch

        return max(1, torch.get_num_threads() // self._ahead)

    @contextlib.contextmanager
    def sharing_cores(self) -> Iterator[None]:
        """Leave the other processes their share of the cores."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def at_once(self) -> int:
        """Return how many probes can be answered at the moment, and say which processes were lost.

        Only the thread that decides calls this: warnings belong to one thread.
        """
        self._say_lost()
        return 1 + len(self._ready)

    def _lose(self, prober: Prober | None, why: object) -> None:
        """Note that *prober* is lost, or one that could not be started, and how many others there are."""
        if prober in self._left:
            self._left.remove(prober)
        others = f"with {len(self._left)} other(s)" if self._left else "alone"
        self._lost.put(f"{why}. The search goes on {others}.")

    def _say_lost(self) -> None:
        """Warn of the processes that were lost since this was called last."""
        while not self._lost.empty():
            remark(f"{self._evaluator.student.id}: a process for probes ahead is lost: {self._lost.get()}")

    def probe(self, units: Sequence[Unit], budgets: Budgets) -> Probe:
        """Return what the next free process answers about *units*. Any thread may ask.

        Raises:
            VoidProbe: too many answers are unscored.
        """
        while True:
            prober = self._free.get()
            kept = True
            try:
                if prober is None:
                    return self._oracle.probe(units, budgets)
                return prober.probe(units, budgets, self._oracle.losses, self._evaluator.batch_size)
            except ProberError as why:
                kept = False
                self._ready.remove(prober)  # type: ignore[arg-type]  # this process raises no ProberError
                self._lose(prober, why)
            finally:
                if kept:
                    self._free.put(prober)

    def _admit(self, prober: Prober) -> None:
        """Let *prober* answer once it has loaded its copy, if that is the copy of the same student."""
        try:
            theirs, ours = prober.identity(), self._evaluator.identity()
            if different := [name for name in ours if theirs.get(name) != ours[name]]:
                raise ProberError(f"its {different[0]} is another")
        except ProberError as why:
            if not self._ending:
                self._lose(prober, why)
            return
        self._ready.append(prober)
        self._free.put(prober)


def probers(evaluator: Evaluator, oracle: Oracle, ahead: int) -> contextlib.AbstractContextManager[Probers | None]:
    """Return *ahead* processes that answer probes; nothing where the search is on its own.

    A model that lies on several GPUs has none left for a copy.
    """
    student = evaluator.student
    if ahead > 1 and getattr(student.family, "device_map", None):
        remark(f"{student.id}: its probes are answered one at a time, because `device_map` spreads it over the GPUs.")
        ahead = 1
    return Probers(evaluator, oracle, ahead) if ahead > 1 else contextlib.nullcontext()


def _serve(connection: Connection, student: Student, gpu: str | None, threads: int) -> None:
    """Answer probes of *student* until the connection ends. Send why where that cannot go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the search decides what Ctrl-C ends
    if gpu:  # before torch looks for GPUs
        os.environ[VISIBLE] = gpu
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the search has ended
        try:
            _answer(connection, student, threads)
        except Exception as error:  # whatever it is, the search goes on without this process
            if isinstance(error, (EOFError, OSError)):
                raise
            connection.send(ProberError(f"{type(error).__name__}: {error}".splitlines()[0]))


def _answer(connection: Connection, student: Student, threads: int) -> None:
    """Load *student*, and answer every probe that *connection* brings."""
    import torch

    from safety_harness.evaluation.evaluator import open_evaluator
    from safety_harness.evaluation.oracle import Oracle

    torch.set_num_threads(threads)
    evaluator = open_evaluator(student, compared=True)
    oracle = Oracle(evaluator)
    connection.send(evaluator.identity())
    while True:
        units, budgets, oracle.losses = connection.recv()
        answer: Probe | VoidProbe
        try:
            answer = oracle.probe(units, budgets)
        except VoidProbe as error:
            answer = error
        connection.send((answer, evaluator.batch_size))
