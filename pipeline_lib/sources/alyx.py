"""Questions to IBL's database, asked by the real client (ONE) in a process of its own.

ONE keeps parameters and tokens in the home folder, shares tables between processes without a lock, and waits for its
server for ever. So every question is asked by ``python -m pipeline_lib.sources.alyx`` with a home folder that lives as
long as the question, and with a time limit. Credentials come from the environment (ALYX_LOGIN with ALYX_PASSWORD, or
ALYX_TOKEN), are never written, and are struck out of what the process says.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from pipeline_lib.sources.endpoints import Endpoints
from pipeline_lib.sources.transport import DownloadError

SECRETS = ("ALYX_PASSWORD", "ALYX_TOKEN")
LIMIT = 300.0
"""Seconds for one question; ONE itself retries a busy server for up to some four minutes."""
LOGIN = (
    "an account: make one at {alyx}/signup, then set ALYX_LOGIN and ALYX_PASSWORD, or ALYX_TOKEN (shown at {alyx}/me);"
    " sessions and insertions of the public release need none"
)


def has_login() -> bool:
    """Whether the environment holds credentials."""
    return bool(os.environ.get("ALYX_TOKEN") or (os.environ.get("ALYX_LOGIN") and os.environ.get("ALYX_PASSWORD")))


def ask(question: str, arguments: dict[str, Any], endpoints: Endpoints, limit: float = LIMIT) -> Any:
    """The answer of the database: `question` is the name of a function in `QUESTIONS`.

    Raises
    ------
    DownloadError : no or wrong credentials, no such session, no answer within `limit` seconds.
    """
    if not has_login():
        raise DownloadError(endpoints.alyx, "no login", LOGIN.format(alyx=endpoints.alyx))
    request = json.dumps([question, arguments, endpoints.alyx])
    with tempfile.TemporaryDirectory(prefix="trainyard-one-") as home:
        environment = os.environ | {"HOME": home, "USERPROFILE": home, "ONE_SAVE_ON_DELETE": "0"}
        command = [sys.executable, "-m", "pipeline_lib.sources.alyx"]
        try:
            result = subprocess.run(
                command, input=request, capture_output=True, text=True, env=environment, cwd=home, timeout=limit
            )
        except subprocess.TimeoutExpired:
            raise DownloadError(endpoints.alyx, f"no answer within {limit:g} s", "an answer; try again later") from None
    try:
        answer = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        text = _without_secrets((result.stderr.strip().splitlines() or ["no message"])[-1])
        raise DownloadError(endpoints.alyx, f"ONE failed: {text}", "an answer") from None
    if "error" in answer:
        accepted = LOGIN.format(alyx=endpoints.alyx) if answer["login"] else "a session or insertion of this database"
        raise DownloadError(endpoints.alyx, _without_secrets(answer["error"]), accepted)
    return answer["answer"]


def _without_secrets(text: str) -> str:
    for name in SECRETS:
        if os.environ.get(name):
            text = text.replace(os.environ[name], "***")
    return " ".join(text.split())[:300]


def session(one: Any, identifier: str) -> dict[str, Any]:
    """Path (lab/Subjects/subject/date/number), datasets and insertions of a session, or of that of an insertion.

    `identifier` is a session id (eid) or an insertion id (pid); for the latter `probe` names the insertion.
    """
    eid, probe = one.pid2eid(identifier)
    eid = str(eid or identifier)
    datasets = one.list_datasets(eid, details=True, query_type="remote")
    record = one.get_details(eid)
    pids, names = one.eid2pid(eid)
    return {
        "eid": eid,
        "probe": probe,
        "path": f"{record['lab']}/Subjects/{record['subject']}/{str(record['date'])[:10]}/{int(record['number']):03d}",
        "details": {name: str(record[name]) for name in ("lab", "subject", "date", "number", "task_protocol")},
        "probes": dict(zip(names or [], map(str, pids or []), strict=True)),
        "datasets": [
            {"id": str(dataset), "path": row.rel_path, "size": size_of(row.file_size), "md5": row.hash or ""}
            for dataset, row in datasets.iterrows()
        ],
    }


def insertions(one: Any, **terms: Any) -> list[dict[str, str]]:
    """Insertions that fit the search terms of ONE, such as `atlas_acronym` and `tag`."""
    _, records = one.search_insertions(details=True, query_type="remote", **terms)
    return [
        {
            "pid": record["id"],
            "eid": record["session"],
            "probe": record["name"],
            "subject": record["session_info"]["subject"],
            "lab": record["session_info"].get("lab", ""),
            "date": str(record["session_info"].get("start_time", ""))[:10],
        }
        for record in records or []
    ]


def size_of(value: Any) -> int | None:
    """The size of a dataset, bytes, as tables hold it; None where it is missing."""
    import pandas as pd

    return None if pd.isna(value) else int(value)


QUESTIONS: dict[str, Callable[..., Any]] = {"session": session, "insertions": insertions}


def main() -> None:
    """Answer the question on standard input with one line of JSON on standard output."""
    question, arguments, address = json.load(sys.stdin)
    import requests
    from one.api import OneAlyx

    try:
        one = OneAlyx(base_url=address, silent=True, mode="remote", cache_rest=None)
        one.alyx.authenticate(
            username=os.environ.get("ALYX_LOGIN") or None,
            password=None if os.environ.get("ALYX_TOKEN") else os.environ["ALYX_PASSWORD"],
            token=os.environ.get("ALYX_TOKEN") or None,
            cache_token=False,
        )
        answer = {"answer": QUESTIONS[question](one, **arguments)}
    except (requests.RequestException, OSError, ValueError, AssertionError) as error:
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        answer = {"error": f"{type(error).__name__}: {error}", "login": status in (400, 401, 403)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
