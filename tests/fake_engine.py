"""A program that serves a model as vLLM does, well or in another way: ``fake_engine.py MODE MODEL --port … …``."""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ENV = "FAKE_ENGINE_NOTES"
"""Variable with a file to which the engine writes what it was told, and the child that it has."""
REQUESTS = "FAKE_ENGINE_REQUESTS"
"""Variable with a file to which the engine appends each request."""
Answer = Callable[[dict[str, Any]], Sequence[int]]


def answers_of(model: str) -> Answer:
    """Return the answers of the checkpoint *model*, one after another, in float32: greedy, or drawn by the seed."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    alone = threading.Lock()

    def answer(body: dict[str, Any]) -> Sequence[int]:
        tokens = torch.tensor([body["prompt"]])
        how: dict[str, Any] = {"do_sample": False}
        if body["temperature"]:
            how = {"do_sample": True, "temperature": body["temperature"], "top_k": 0, "top_p": body["top_p"]}
        with alone, torch.inference_mode():
            torch.manual_seed(body["seed"])
            made = loaded.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=body["max_tokens"], **how,
                eos_token_id=body["stop_token_ids"], pad_token_id=0,
            )  # fmt: skip
        return [int(token) for token in made[0, tokens.shape[1] :]]

    return answer


def handler(mode: str, name: str, answer: Answer) -> type[BaseHTTPRequestHandler]:
    asked = [0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send({"version": "9.9", "status": "ok"}, 503 if mode == "never" else 200)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked[0] += 1
            if file := os.environ.get(REQUESTS):
                with Path(file).open("a") as notes:
                    notes.write(json.dumps(body) + "\n")
            if mode == "dies-later" and asked[0] > 5:
                print("RuntimeError: out of kernels", file=sys.stderr, flush=True)
                os._exit(5)
            if mode == "slow":
                time.sleep(20)
            if mode == "a-page":
                self.send("<html>")
                return
            tokens = {"token_ids": list(answer(body))} if mode != "no-tokens" else {}
            known = body["model"] == name and self.path == "/v1/completions"
            choice = {"index": 0, "text": "…", "finish_reason": "stop", **tokens}
            self.send({"model": name, "choices": [choice]}, 200 if known else 404)

        def send(self, value: object, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server names it)
            """Say nothing."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode")
    parser.add_argument("model")
    for name in ("host", "dtype", "served-model-name", "generation-config", "more"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    if file := os.environ.get(ENV):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        told = {"pids": [os.getpid(), child.pid], "path": os.environ.get("PYTHONPATH"), "arguments": sys.argv[1:]}
        Path(file).write_text(json.dumps(told))
    if given.mode == "dies":
        print("ValueError: no kernel for this head\nbye", file=sys.stderr)
        sys.exit(3)
    answer = functools.partial(lambda _: [5, 6, 7]) if given.mode != "well" else answers_of(given.model)
    engine = ThreadingHTTPServer((given.host, given.port), handler(given.mode, given.served_model_name, answer))
    engine.serve_forever()


if __name__ == "__main__":
    main()
