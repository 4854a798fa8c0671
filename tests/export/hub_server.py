"""A small server for huggingface_hub: repositories go into and out of a local folder."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION = "0" * 40


class Handler(BaseHTTPRequestHandler):
    """Requests of huggingface_hub; the repository `name/model` lies in `folder`/name/model."""

    folder: Path

    def do_GET(self) -> None:
        self._get(body=True)

    def do_HEAD(self) -> None:
        self._get(body=False)

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        sent = self.rfile.read(size).decode()
        parts = self.path.split("?")[0].strip("/").split("/")
        if self.path == "/api/repos/create":
            request = json.loads(sent)
            name = (
                f"{request['organization']}/{request['name']}"
                if request.get("organization")
                else request["name"]
            )
            return self._answer(
                {"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name}
            )
        if parts[-2] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(sent)["files"]
            ]
            return self._answer({"files": files})
        if parts[-2] == "commit":
            self._commit(
                self.folder / parts[2] / parts[3], [json.loads(line) for line in sent.splitlines()]
            )
            url = f"http://{self.headers['Host']}/{parts[2]}/{parts[3]}"
            return self._answer(
                {"commitUrl": f"{url}/commit/{REVISION}", "commitOid": REVISION, "success": True}
            )
        return self._answer({"errors": [], "warnings": []})

    def _commit(self, repository: Path, lines: list[dict]) -> None:
        for line in lines:
            if line["key"] == "file":
                target = repository / line["value"]["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(base64.b64decode(line["value"]["content"]))

    def _get(self, body: bool) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository = self.folder / parts[2] / parts[3]
            names = (
                sorted(path.name for path in repository.iterdir()) if repository.is_dir() else []
            )
            if not names:
                return self._answer(
                    {"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"}
                )
            if "tree" in parts:
                rows = [
                    {
                        "type": "file",
                        "path": n,
                        "size": (repository / n).stat().st_size,
                        "oid": _sha1(repository / n),
                    }
                    for n in names
                ]
                return self._answer(rows)
            return self._answer(
                {
                    "id": "/".join(parts[2:4]),
                    "sha": REVISION,
                    "siblings": [{"rfilename": name} for name in names],
                }
            )
        if "resolve" in parts and (file := self.folder / parts[0] / parts[1] / parts[-1]).is_file():
            return self._send(
                file.read_bytes(),
                body,
                200,
                {"ETag": f'"{_sha1(file)}"', "X-Repo-Commit": REVISION},
            )
        return self._answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def _answer(
        self, content: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self._send(
            json.dumps(content).encode(),
            True,
            status,
            {"Content-Type": "application/json", **(headers or {})},
        )

    def _send(self, content: bytes, body: bool, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Stay silent."""


def _sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve repositories below a folder; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Handler,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
