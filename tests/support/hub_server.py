"""A local server that speaks as much of the model hub's protocol as loading a checkpoint needs.

Repositories are folders, and plain files are served beside them under ``/files/``. It answers as
``huggingface_hub`` expects: the commit and a hash with each file, and what is missing.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: Mapping[str, Path]
    files: Mapping[str, Path]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/files/(.+)", path):
            self._file(self.files.get(found[1]), with_body)
        elif found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            self._of_repository(found[1], found[2], found[3], with_body)
        elif (found := re.match(r"/api/models/([\w.-]+/[\w.-]+)", path)) and (
            folder := self.repositories.get(found[1])
        ):
            names = [{"rfilename": each.name} for each in folder.iterdir()]
            told = {"id": found[1], "sha": COMMIT, "siblings": names}
            listed = [] if "/tree/" in path else told
            self._send(json.dumps(listed).encode(), with_body, "application/json")
        else:
            self._missing("RepoNotFound")

    def _of_repository(self, name: str, revision: str, file: str, with_body: bool) -> None:
        folder = self.repositories.get(name)
        if folder is None:
            self._missing("RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._missing("RevisionNotFound")
        else:
            self._file(folder / file, with_body)

    def _file(self, path: Path | None, with_body: bool) -> None:
        if path is None or not path.is_file():
            self._missing("EntryNotFound")
        else:
            self._send(path.read_bytes(), with_body, "application/octet-stream")

    def _missing(self, what: str) -> None:
        self.send_response(HTTPStatus.NOT_FOUND)
        self.send_header("X-Error-Code", what)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, with_body: bool, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(repositories: Mapping[str, Path], files: Mapping[str, Path]) -> Iterator[str]:
    """The address of a server of these folders, by id, and files, by name."""
    handler = type("Answers", (_Answers,), {"repositories": repositories, "files": files})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
