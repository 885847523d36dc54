"""A loopback Alyx: the endpoints that ONE asks, for one session with its insertions, and a data server beside it."""

import hashlib
import json
import uuid
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from tests.servers.files import FileServer, Handler

LOGIN, PASSWORD, TOKEN = "researcher", "correct-horse", "0123456789abcdef0123456789abcdef01234567"
NAMESPACE = uuid.UUID("5ee6bd5f-ff43-4b8b-9a57-2d2a4f9ac4b0")


class Alyx:
    """Answers as the database does. `folder` is the session, .../LAB/Subjects/SUBJECT/DATE/NNN, with `alf` in it."""

    def __init__(self, files: FileServer, folder: Path, stale: str = "") -> None:
        self.files, self.folder = files, folder
        self.lab, _, self.subject, self.date, self.number = folder.parts[-5:]
        self.eid = identifier("session")
        self.probes = sorted(path.name for path in (folder / "alf").iterdir() if path.is_dir())
        self.pids = {name: identifier(name) for name in self.probes}
        self.datasets = [self._dataset(path, stale) for path in sorted(folder.rglob("*")) if path.is_file()]
        self.token = TOKEN
        self.rejections = 0
        for prefix, page in {
            "/auth-token": self._auth_token,
            "/me": self._me,
            "/api/schema": self._schema,
            "/sessions": self._sessions,
            "/insertions": self._insertions,
        }.items():
            files.pages[prefix] = page

    def path_of(self, name: str) -> str:
        """Path on the server of the dataset with this name."""
        dataset = next(each for each in self.datasets if each["name"] == name)
        return urlsplit(dataset["data_url"]).path

    def _dataset(self, path: Path, stale: str) -> dict:
        relative = path.relative_to(self.folder)
        number = identifier(relative.as_posix())
        content = path.read_bytes()
        on_server = relative.with_name(f"{relative.stem}.{number}{relative.suffix}").as_posix()
        address = f"/public/{self.lab}/Subjects/{self.subject}/{self.date}/{self.number}/{quote(on_server)}"
        return {
            "id": number,
            "name": relative.name,
            "hash": "0" * 32 if relative.name == stale else hashlib.md5(content).hexdigest(),
            "file_size": len(content),
            "data_url": self.files.put(address, content),
            "default_revision": "True",
            "qc": "NOT_SET",
            "collection": relative.parent.as_posix(),
        }

    def _allowed(self, handler: Handler) -> bool:
        if handler.headers.get("Authorization") == f"Token {self.token}":
            return True
        self.rejections += 1
        _json(handler, {"detail": "Invalid token."}, 403)
        return False

    def _auth_token(self, handler: Handler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        given = parse_qs(body)
        if given.get("username") == [LOGIN] and given.get("password") == [PASSWORD]:
            _json(handler, {"token": self.token})
        else:
            _json(handler, {"non_field_errors": ["Unable to log in with provided credentials."]}, 400)

    def _me(self, handler: Handler) -> None:
        if self._allowed(handler):
            _json(handler, {"username": LOGIN})

    def _schema(self, handler: Handler) -> None:
        if self._allowed(handler):
            names = ("sessions", "insertions")
            lists = {f"/{name}": {"get": {"parameters": _parameters(name)}} for name in names}
            reads = {f"/{name}/{{id}}": {"get": {"parameters": [{"name": "id"}]}} for name in names}
            _json(handler, {"openapi": "3.0.3", "paths": lists | reads, "components": {"schemas": {}}})

    def _sessions(self, handler: Handler) -> None:
        if not self._allowed(handler):
            return
        wanted = urlsplit(handler.path).path.removeprefix("/sessions").strip("/")
        if wanted == self.eid:
            _json(handler, self._session() | {"data_dataset_session_related": self.datasets})
        elif wanted:
            _json(handler, {"detail": "Not found."}, 404)
        else:
            _json(handler, _page([self._session()]))

    def _session(self) -> dict:
        return {
            "id": self.eid,
            "subject": self.subject,
            "start_time": f"{self.date}T12:00:00",
            "lab": self.lab,
            "number": int(self.number),
            "task_protocol": "_iblrig_tasks_ephysChoiceWorld6.4.2",
            "projects": ["ibl_neuropixel_brainwide_01"],
            "url": f"{self.files.url}/sessions/{self.eid}",
        }

    def _insertions(self, handler: Handler) -> None:
        if not self._allowed(handler):
            return
        wanted = urlsplit(handler.path).path.removeprefix("/insertions").strip("/")
        records = [
            {"id": pid, "session": self.eid, "name": name, "model": "3B2", "json": {}, "session_info": self._session()}
            for name, pid in self.pids.items()
        ]
        if wanted:
            found = [record for record in records if record["id"] == wanted]
            _json(handler, found[0] if found else {"detail": "Not found."}, 200 if found else 404)
        else:
            asked = parse_qs(urlsplit(handler.path).query)
            named = [record for record in records if record["name"] in asked.get("name", [record["name"]])]
            known = asked.get("atlas_acronym", ["MOs"])[0] == "MOs"
            _json(handler, _page(named if known else []))


def identifier(name: str) -> str:
    """The id of something in this database."""
    return str(uuid.uuid5(NAMESPACE, name))


def _page(records: list) -> dict:
    return {"count": len(records), "next": None, "previous": None, "results": records}


def _parameters(endpoint: str) -> list[dict]:
    names = {"sessions": ["subject", "lab", "tag"], "insertions": ["session", "name", "atlas_acronym", "tag"]}[endpoint]
    return [{"name": name} for name in [*names, "limit", "offset", "django"]]


def _json(handler: Handler, content: object, status: int = 200) -> None:
    handler.answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})
