"""A stand-in for the model hub on the loopback interface: one repository, served from a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "c0ffee" * 6 + "c0ff"


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Yield the address at which requests are answered."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def hub(repository: str, folder: Path, commit: str = COMMIT) -> Iterator[tuple[str, list[str]]]:
    """Yield the address and the list of files that were downloaded."""
    served: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._file(body=False)

        def do_GET(self):
            if self.path.startswith(f"/api/models/{repository}/tree/"):
                self._json(
                    [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0" * 40} for p in files()]
                )
            elif self.path.startswith(f"/api/models/{repository}"):
                self._json({"id": repository, "sha": commit, "siblings": [{"rfilename": p.name} for p in files()]})
            else:
                self._file(body=True)

        def _json(self, content):
            raw = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def _file(self, body):
            path = folder / self.path.rpartition("/")[2].partition("?")[0]
            if f"/{repository}/resolve/" not in self.path or not path.is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound" if repository not in self.path else "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            raw = path.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha1(raw).hexdigest()}"')
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if body:
                served.append(path.name)
                self.wfile.write(raw)

        def log_message(self, *args):
            pass

    def files():
        return sorted(p for p in folder.iterdir() if p.is_file())

    with answering(Handler) as address:
        yield address, served
