"""What there is: sessions of a source that fit, as rows to paste into the session sheet."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.errors import InputError
from pipeline_lib.sources.alyx import ask, has_login
from pipeline_lib.sources.download import Downloader
from pipeline_lib.sources.fetch_allen import behavior_file, behavior_manifest, coding_table
from pipeline_lib.sources.ibl import GOOD
from pipeline_lib.sources.ibl_release import RELEASE, UNITS, insertions, public_tables, release_units
from pipeline_lib.sources.location import require_columns
from pipeline_lib.sources.remote import ALLEN

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Query:
    """What the sessions must have; None: anything. Texts match where they are part of the source's own."""

    region: str | None = None
    """Acronym of a structure, such as VISp or CA1; for IBL of the Allen, Beryl or Cosmos parcellation."""
    genotype: str | None = None
    """Allen only, such as Sst-IRES-Cre."""
    stimulus_set: str | None = None
    """Allen only: the session type, such as brain_observatory_1.1 or functional_connectivity."""
    release: str | None = None
    """IBL only: a tag of the database, such as 2024_Q2_IBL_et_al_BWM_iblsort."""
    insertions: bool = False
    """IBL only: a row an insertion instead of a session."""
    limit: int = 10
    """At most this many rows; 0: all."""

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise InputError("sessions", "limit", self.limit, "0 or more rows")


@dataclass(frozen=True)
class Entry:
    """A row of the session sheet, and a comment on it."""

    session: str
    source: str
    location: str
    options: str
    comment: str


def find_sessions(source: str, query: Query, data: Path, downloader: Downloader) -> list[Entry]:
    """The first `query.limit` sessions that fit, those with most in the region first; tables are kept in `data`.

    Raises
    ------
    DownloadError : a table cannot be had.
    InputError : an unknown source, a table without a column that it should have, nothing that fits.
    """
    if source not in FINDERS:
        raise InputError("--source", "source", repr(source), ", ".join(FINDERS))
    entries = FINDERS[source](query, data, downloader)
    if not entries:
        raise InputError("sessions", source, "no session that fits", "less demanding terms")
    return entries[: query.limit or None]


def as_sheet(entries: Iterable[Entry]) -> str:
    """Rows to paste below the header of a session sheet, each with its comment above it."""
    lines = ["session\tsource\tlocation\toptions"]
    for entry in entries:
        lines += [f"# {entry.comment}", f"{entry.session}\t{entry.source}\t{entry.location}\t{entry.options}"]
    return "\n".join(lines) + "\n"


def _coding(query: Query, data: Path, downloader: Downloader) -> list[Entry]:
    import pandas as pd

    names = ["sessions.csv", *(["probes.csv", "channels.csv"] if query.region else [])]
    files = downloader.fetch_all([coding_table(name, data, downloader) for name in names])
    tables = {item.file.path.stem: pd.read_csv(item.file.path) for item in files}
    sessions, place = tables["sessions"], files[0].file.path
    chosen = _contains(sessions, "genotype", query.genotype, place)
    chosen &= _contains(sessions, "session_type", query.stimulus_set, place)
    sessions = sessions[chosen].set_index("id")
    if not query.region:
        return [_allen_entry("allen", number, row, query) for number, row in sessions.iterrows()]
    inside = _contains(tables["channels"], "ecephys_structure_acronym", query.region, place, whole=True)
    probes = tables["channels"][inside]["ecephys_probe_id"]
    owners = tables["probes"].set_index("id")["ecephys_session_id"].reindex(probes)
    channels = owners.value_counts().reindex(sessions.index).dropna().astype(int)
    channels = channels.sort_values(ascending=False, kind="stable")
    return [
        _allen_entry("allen", number, row, query, f", {count} channels in {query.region}")
        for (number, row), count in zip(sessions.loc[channels.index].iterrows(), channels, strict=True)
    ]


def _behavior(query: Query, data: Path, downloader: Downloader) -> list[Entry]:
    import pandas as pd

    folder = data / ALLEN["allen-behavior"][0]
    manifest = json.loads(behavior_manifest(folder, downloader).read_text())
    path = folder / "ecephys_sessions.csv"
    downloader.fetch(behavior_file(manifest["metadata_files"]["ecephys_sessions"], path))
    sessions = pd.read_csv(path)
    chosen = _contains(sessions, "genotype", query.genotype, path)
    chosen &= _contains(sessions, "session_type", query.stimulus_set, path)
    if query.region:
        chosen &= _contains(sessions, "structure_acronyms", f"'{query.region}'", path)
    rows = sessions[chosen].set_index("ecephys_session_id")
    return [_allen_entry("allen-behavior", number, row, query) for number, row in rows.iterrows()]


def _allen_entry(scheme: str, number: object, row: "pd.Series", query: Query, more: str = "") -> Entry:
    """The row of a session; its comment ends with `more`."""
    facts = [str(row[name]) for name in ("session_type", "genotype", "sex") if name in row]
    options = f"regions: [{query.region}]" if query.region else ""
    return Entry(f"s{number}", "allen", f"{scheme}:{number}", options, ", ".join(facts) + more)


def _ibl(query: Query, data: Path, downloader: Downloader) -> list[Entry]:
    if has_login():
        return _ibl_with_login(query, downloader)
    tables = public_tables(data / "ibl", query.release or RELEASE, downloader)
    sessions = tables["sessions"].sort_values(["date", "subject", "number"])
    sessions.index = sessions.index.astype(str)
    probes = insertions(tables).groupby("eid")["probe"].apply(list).to_dict()
    comments = dict.fromkeys(sessions.index, "")
    if query.region:
        units = _good_units(query.region, data, downloader)
        known = [eid for eid in units.index if eid in sessions.index]
        sessions = sessions.loc[known]
        comments = {eid: f", {units[eid]} good units in {query.region}" for eid in known}
    entries = []
    for eid, row in sessions.iterrows():
        comment = f"{row['lab']}, {row['subject']}, {row['date']}{comments[eid]}"
        entries += _ibl_entries(eid, probes.get(eid, []), query, comment)
    return entries


def _ibl_with_login(query: Query, downloader: Downloader) -> list[Entry]:
    terms = {"atlas_acronym": query.region, "tag": query.release}
    found = ask("insertions", {name: value for name, value in terms.items() if value}, downloader.endpoints)
    probes: dict[str, list[str]] = {}
    for record in found:
        probes.setdefault(record["eid"], []).append(record["probe"])
    described = {record["eid"]: f"{record['lab']}, {record['subject']}, {record['date']}" for record in found}
    return [entry for eid, names in probes.items() for entry in _ibl_entries(eid, sorted(names), query, described[eid])]


def _ibl_entries(eid: str, probes: list[str], query: Query, comment: str) -> list[Entry]:
    """The row of a session with these probes, or a row for each of them; none for a session without sorted spikes."""
    name, regions = f"ibl_{eid.partition('-')[0]}", f", regions: [{query.region}]" if query.region else ""
    chosen = {f"{name}_{probe}": [probe] for probe in probes} if query.insertions else {name: probes} if probes else {}
    return [
        Entry(session, "ibl", f"ibl:{eid}", f"probes: [{', '.join(names)}]{regions}", comment)
        for session, names in chosen.items()
    ]


FINDERS: dict[str, Callable[[Query, Path, Downloader], list[Entry]]] = {
    "allen": _coding,
    "allen-behavior": _behavior,
    "ibl": _ibl,
}


def _good_units(region: str, data: Path, downloader: Downloader) -> "pd.Series":
    """Good units of the Brain-Wide Map in a region by session (eid), most first."""
    import numpy as np
    from iblatlas.regions import BrainRegions

    units = release_units(data / "ibl", ("eid", "acronym", "atlas_id", "label"), downloader)
    atlas = BrainRegions()
    require_columns(units, UNITS, ("eid", "label"))
    units = units[units["label"] == GOOD]
    if "acronym" not in units:
        require_columns(units, UNITS, ["atlas_id"])
        units = units.assign(acronym=atlas.id2acronym(units["atlas_id"].to_numpy()))
    names = units["acronym"].unique()
    known = names[np.isin(names, atlas.acronym)]
    inside = {region}
    for mapping in ("Allen", "Beryl", "Cosmos"):
        inside |= set(known[np.asarray(atlas.acronym2acronym(known, mapping=mapping)) == region])
    return units[units["acronym"].isin(inside)]["eid"].astype(str).value_counts()


def _contains(table: "pd.DataFrame", column: str, text: str | None, path: Path, whole: bool = False) -> "pd.Series":
    """Which rows have `text` in (or, with `whole`, as) their `column`; all where there is no text."""
    import pandas as pd

    if text is None:
        return pd.Series(True, index=table.index)
    require_columns(table, path, [column])
    values = table[column].fillna("").astype(str)
    return values == text if whole else values.str.contains(text, regex=False)
