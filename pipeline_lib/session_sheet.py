"""The session sheet: a tab-separated file, a row a session, resolved to where its files are and how they are read.

Nothing is read of the sessions themselves, and no network is asked. Nothing heavy is imported here.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline_lib.config import Config, check_name
from pipeline_lib.errors import InputError, suggest
from pipeline_lib.parsing import with_numbers
from pipeline_lib.paths import Paths
from pipeline_lib.sources.remote import ACCEPTED as REMOTE_LOCATIONS
from pipeline_lib.sources.remote import READERS, Remote, parse_remote
from pipeline_lib.yaml_text import parse_yaml

COLUMNS = ("session", "source", "location", "options")
OPTIONAL = "options"
SIMULATED = "simulated:"


@dataclass(frozen=True)
class Session:
    """A row of the session sheet, options resolved."""

    session: str
    source: str
    location: str
    simulation: str | None
    options: dict[str, Any]
    remote: Remote | None = None
    """Where it is fetched from; None where it is here."""


def read_sessions(config: Config, where: str) -> dict[str, Session]:
    """The sessions of a configuration's sheet by their names; `where` names the configuration in an error.

    Raises
    ------
    InputError : no such file, or not a table of these columns; a session twice; an unknown source, option or
        simulation; a location where nothing is.
    """
    from pipeline_lib.sources import OWN, SOURCES, check_options

    for source in config.sources:
        if source not in SOURCES and not source.endswith(OWN):
            raise InputError(where, "sources", repr(source), suggest(source, SOURCES))
    path = Path(config.sessions)
    if not path.is_file():
        raise InputError(where, "sessions", f"no file {path}", "a tab-separated session sheet")
    sessions: dict[str, Session] = {}
    checked: dict[tuple[str, str], dict[str, Any]] = {}  # a thousand sessions have the same few options
    for number, row in enumerate(_rows(path), start=1):
        place, session = f"{path}: row {number}", (row["session"] or "").strip()
        if row["source"] is None:
            raise InputError(place, "columns", f"one cell, {session!r}", "a tab between two cells")
        if more := [cell for cell in row.get(None, []) if cell.strip()]:
            raise InputError(place, "columns", f"{more[0]!r} beyond the last column", "a cell a column")
        check_name(session, place, "session")
        if session in sessions:
            raise InputError(place, "session", f"{session!r} a second time", "every session once")
        place = f"{place} ({session})"
        source = row["source"].strip()
        options = config.sources.get(source, {}) | _options(row.get(OPTIONAL), place)
        if (key := (source, repr(options))) not in checked:
            try:
                checked[key] = with_numbers(options, check_options(source, options), place)
            except InputError as error:
                raise InputError(place, error.field, error.found, error.accepted) from None
        options = checked[key]
        location, simulation, remote = _locate((row["location"] or "").strip(), source, options, config, place)
        sessions[session] = Session(session, source, location, simulation, options, remote)
    if not sessions:
        raise InputError(path, "rows", "no session", "at least one row")
    return sessions


def _rows(path: Path) -> Iterable[dict[Any, Any]]:
    """The rows of the sheet by column, as text; a cell that is not there is None, those beyond the last are under None.

    Raises InputError where it is not a table of `COLUMNS`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            lines = [line for line in handle if line.strip() and not line.startswith("#")]
    except UnicodeDecodeError as error:
        raise InputError(path, "text", str(error), "a tab-separated file in UTF-8") from None
    rows = csv.DictReader(lines, delimiter="\t")
    columns = rows.fieldnames = [column.strip() for column in rows.fieldnames or []]
    if len(columns) == 1:
        raise InputError(path, "columns", repr(columns[0]), f"{', '.join(COLUMNS)}, with tabs between them")
    for column in columns:
        if column not in COLUMNS:
            raise InputError(path, "columns", repr(column), suggest(column, COLUMNS))
        if columns.count(column) > 1:
            raise InputError(path, "columns", f"{column!r} twice", "every column once")
    for column in COLUMNS:
        if column not in columns and column != OPTIONAL:
            raise InputError(path, "columns", f"no column {column!r}", f"tab-separated {', '.join(COLUMNS)}")
    return rows


def _options(cell: str | None, place: str) -> dict[str, Any]:
    text = (cell or "").strip()
    if not text:
        return {}
    try:
        options = parse_yaml(text if text.startswith("{") else "{" + text + "}")
    except (yaml.YAMLError, RecursionError, ValueError):
        options = None
    if not isinstance(options, dict):
        raise InputError(place, "options", repr(text), "key: value, key: value (YAML), each key once")
    return options


def _locate(
    location: str, source: str, options: dict[str, Any], config: Config, place: str
) -> tuple[str, str | None, Remote | None]:
    """Where a session's files are or will be, the simulation that makes them, and what they are fetched from."""
    if location.startswith(SIMULATED):
        name = location.removeprefix(SIMULATED)
        if name not in config.simulations:
            accepted = f"{suggest(name, config.simulations)} (in the configuration's `simulations`)"
            raise InputError(place, "location", location, accepted)
        return str(Path(Paths(config.results).simulation(name)).parent), name, None
    remote = parse_remote(location, place, options)
    if remote is not None:
        if source not in (readers := READERS.get(remote.scheme, (source,))):
            raise InputError(place, "source", repr(source), f"{' or '.join(readers)} for {remote.scheme}: locations")
        return str(remote.location(config.data)), None, remote
    accepted = f"a path, relative to the config's `data`, or {REMOTE_LOCATIONS}"
    try:
        path = Path(config.data, Path(location).expanduser())
    except RuntimeError:
        raise InputError(place, "location", f"no home folder {Path(location).parts[0]}", accepted) from None
    if not location or not path.exists():
        raise InputError(place, "location", f"no file or folder {path}" if location else "nothing", accepted)
    return str(path), None, None
