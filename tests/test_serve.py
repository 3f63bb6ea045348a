"""A cut model behind an OpenAI-compatible server that exists: `transformers serve`, one request."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from transformers.utils.import_utils import is_serve_available

from shortlm.cut import cut
from shortlm.model import open_model

PROMPT = "Once upon a time"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer(url: str, content: dict | None = None, seconds: float = 100) -> dict:
    """Asked again until the server is up."""
    end = time.monotonic() + seconds
    raw = json.dumps(content).encode() if content else None
    while True:
        try:
            request = urllib.request.Request(url, raw, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@pytest.mark.skipif(not is_serve_available(), reason="needs transformers[serving]")
def test_a_cut_model_is_served(tmp_path):
    cut("embedded", [4, 5, 6], out=tmp_path / "cut")
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(tmp_path / "cut")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(command, env=os.environ | {"NO_PROXY": "127.0.0.1"}, stdout=subprocess.DEVNULL) as server:
        try:
            answer(f"http://127.0.0.1:{port}/health")
            asked = {"model": str(tmp_path / "cut"), "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
            text = answer(f"http://127.0.0.1:{port}/v1/completions", asked)["choices"][0]["text"]
        finally:
            server.terminate()
    opened = open_model(str(tmp_path / "cut"))
    ids = opened.tokenizer(PROMPT, return_tensors="pt")
    mine = opened.model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids.input_ids.shape[1] :]
    assert text == opened.tokenizer.decode(mine, skip_special_tokens=True) and text.strip()
