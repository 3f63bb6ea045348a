"""A stand-in for the hub's HTTP API of uploads on the loopback interface: repositories made, and what was committed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from hub_stand_in import answering

TOKEN = "hf_of_the_tests"


class Kept:
    """What the stand-in was told."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.messages: list[str] = []


@contextmanager
def writable_hub() -> Iterator[tuple[str, Kept]]:
    """Yield the address and what is kept there; only requests with TOKEN are answered."""
    kept = Kept()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer(lambda: {"name": "acme", "type": "user", "auth": {"type": "access_token"}})

        def do_POST(self):
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer(lambda: self._posted(raw))

        def _posted(self, raw):
            if self.path == "/api/repos/create":
                asked = json.loads(raw)
                kept.repositories[f"{asked.get('organization') or 'acme'}/{asked['name']}"] = asked
                return {"url": f"http://{self.headers['Host']}/{asked.get('organization') or 'acme'}/{asked['name']}"}
            if "/preupload/" in self.path:
                files = json.loads(raw)["files"]
                return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            if self.path == "/api/validate-yaml":  # of a card's front matter
                return {"errors": [], "warnings": []}
            assert "/commit/" in self.path, self.path
            for line in map(json.loads, raw.splitlines()):
                if line["key"] == "file":
                    kept.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                else:
                    kept.messages.append(line["value"]["summary"])
            return {
                "commitUrl": f"http://{self.headers['Host']}/acme/any/commit/c0ffee",
                "commitOid": "c0ffee",
                "success": True,
            }

        def _answer(self, content):
            allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            raw = json.dumps(content() if allowed else {"error": "Invalid user token."}).encode()
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args):
            pass

    with answering(Handler) as address:
        yield address, kept
