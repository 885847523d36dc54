"""Sessions of the International Brain Laboratory, as the folder of ALF files that the reader wants.

With credentials in the environment the database is asked, and files come from its file server. Without, the tables of
the public release say what there is, and files come from the public bucket. Either way every file has a published size
and MD5, and goes where ONE would have put it.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from pipeline_lib.errors import InputError
from pipeline_lib.sources.alf import newest_of
from pipeline_lib.sources.alyx import LOGIN, ask, has_login, size_of
from pipeline_lib.sources.download import Downloader, RemoteFile
from pipeline_lib.sources.endpoints import Endpoints
from pipeline_lib.sources.fetched import Description, Listed
from pipeline_lib.sources.ibl import CITATION, GOOD, LICENCE, PASSING, TIMES, chosen_sortings
from pipeline_lib.sources.ibl_release import RELEASE, UNITS, public_tables, release_units
from pipeline_lib.sources.location import require_columns
from pipeline_lib.sources.options import Names, as_tuple
from pipeline_lib.sources.remote import Remote
from pipeline_lib.sources.transport import DownloadError

SPIKES = (TIMES, "spikes.clusters.npy")
CLUSTERS = ("clusters.channels.npy", "clusters.depths.npy", "clusters.metrics.pqt", "clusters.uuids.csv")
CHANNELS = ("channels.brainLocationIds_ccf_2017.npy", "channels.mlapdv.npy")
SIGNALS = {
    "wheel": (r"_ibl_wheel\.(position|timestamps)\.npy",),
    "licks": (r"licks\.times\.npy",),
    "motion_energy": (r"(left|right|body)Camera\.ROIMotionEnergy\.npy", r"_ibl_(left|right|body)Camera\.times\.npy"),
    "pose": (r"_ibl_(left|right|body)Camera\.(lightningPose|dlc)\.pqt", r"_ibl_(left|right|body)Camera\.times\.npy"),
    "pupil": (r"_ibl_leftCamera\.features\.pqt", r"_ibl_leftCamera\.times\.npy"),
}
UUIDS = r"alf/(probe\w+)/(?:[^/]+/)?clusters\.uuids\.csv"
TRIALS = ((r"_ibl_trials\.table\.pqt",), (r"_ibl_trials\.\w+\.npy",))
"""A table, or in older sessions an array a column."""
TASK = r"alf(?:/task_\d+)?"
"""Where trials and signals lie; sessions of several tasks have a folder for each."""


def ibl_files(remote: Remote, folder: Path, options: dict[str, Any], downloader: Downloader) -> Listed:
    """The datasets that reading a session with `options` needs, and what the source says about the session.

    Raises
    ------
    DownloadError : an unknown id, wrong credentials.
    InputError : a probe, a sorter or a signal that the session does not have, or no spike sorting.
    """
    session, base = find_session(remote, folder, downloader)
    chosen = choose(session["datasets"], options, session["probe"], remote.text)
    files = [remote_file(dataset, session, base, folder) for dataset in chosen]
    probes = {name: pid for name, pid in session["probes"].items() if session["probe"] in (None, name)}
    details = session["details"] | {"eid": session["eid"], "probes": probes}
    release = session["release"] + (f", revision {options['revision']}" if options.get("revision") else "")
    return files, Description(remote.text, session["eid"], release, LICENCE, CITATION, details)


def find_session(remote: Remote, folder: Path, downloader: Downloader) -> tuple[dict[str, Any], str]:
    """What the database, or without login the tables of the release, say of a session; and the address of its files.

    Raises
    ------
    DownloadError : an unknown id, wrong credentials.
    """
    if has_login():
        session = ask("session", {"identifier": remote.identifier}, downloader.endpoints)
        return session | {"release": "openalyx"}, _file_server(downloader.endpoints)
    return _look_up(remote, folder, downloader), f"{downloader.endpoints.ibl_public}/data"


def remote_file(dataset: dict[str, Any], session: dict[str, Any], base: str, folder: Path) -> RemoteFile:
    """A dataset of the session as a file to fetch: size and MD5 are published.

    Raises
    ------
    DownloadError : the tables name a path that leads out of `folder`.
    """
    relative = PurePosixPath(session["path"], dataset["path"])
    if relative.is_absolute() or ".." in relative.parts:
        raise DownloadError(base, f"a dataset with the path {str(relative)!r}", "a path within the session's folder")
    return RemoteFile(
        f"{base}/{quote(_with_id(session['path'], dataset))}",
        folder / relative,
        dataset["size"],
        {"md5": dataset["md5"]} if re.fullmatch("[0-9a-f]{32}", dataset["md5"]) else {},
    )


def _with_id(session: str, dataset: dict[str, Any]) -> str:
    """Servers keep a dataset under its name with its id before the ending."""
    path = PurePosixPath(session, dataset["path"])
    return str(path.with_name(f"{path.stem}.{dataset['id']}{path.suffix}"))


def _file_server(endpoints: Endpoints) -> str:
    if endpoints.ibl_files:
        return endpoints.ibl_files
    import one.params

    return str(one.params.default().HTTP_DATA_SERVER)


def _look_up(remote: Remote, folder: Path, downloader: Downloader) -> dict[str, Any]:
    """The session, given by its own id or that of an insertion, in the tables of the public release."""
    tables, endpoints = public_tables(folder.parent, RELEASE, downloader), downloader.endpoints
    sessions, datasets = tables["sessions"], tables["datasets"]
    index, eid, units = sessions.index.astype(str), remote.identifier, None
    if eid not in index:
        eid, units = _of_insertion(remote, folder, downloader)
    if eid not in index:
        found = f"no session {eid}, that of insertion {remote.identifier}, in release {RELEASE}"
        raise DownloadError(endpoints.ibl_public, found, LOGIN.format(alyx=endpoints.alyx))
    row = sessions.iloc[index.get_loc(eid)]
    own = datasets[datasets.index.get_level_values("eid").astype(str) == eid]
    own = own[own["exists"].astype(bool)]
    session: dict[str, Any] = {
        "eid": eid,
        "probe": None,
        "release": RELEASE,
        "path": f"{row['lab']}/Subjects/{row['subject']}/{row['date']}/{int(row['number']):03d}",
        "details": {name: str(row[name]) for name in ("lab", "subject", "date", "number", "task_protocol")},
        "probes": {},
        "datasets": [
            {"id": str(id), "path": row.rel_path, "size": size_of(row.file_size), "md5": str(row.hash or "")}
            for id, row in zip(own.index.get_level_values("id"), own.itertuples(), strict=True)
        ],
    }
    if units is not None:
        probe = _probe_of(session, units, folder, downloader)
        session |= {"probe": probe, "probes": {probe: remote.identifier}}
    return session


def _of_insertion(remote: Remote, folder: Path, downloader: Downloader) -> tuple[str, set[str]]:
    """The session (eid) of an insertion (pid) of the release, and the ids of the insertion's units.

    Raises
    ------
    DownloadError : no insertion of this id is in the release, or the table of its units cannot be had.
    """
    public, advice = downloader.endpoints.ibl_public, LOGIN.format(alyx=downloader.endpoints.alyx)
    try:
        units = release_units(folder.parent, ("pid", "eid", "uuids"), downloader)
    except DownloadError as error:
        found = f"no session {remote.identifier} in release {RELEASE}, and no table of insertions ({error.found})"
        raise DownloadError(public, found, advice) from None
    require_columns(units, UNITS, ("pid", "eid", "uuids"))
    own = units[units["pid"].astype(str) == remote.identifier]
    if len(own) == 0:
        found = f"no session or insertion {remote.identifier} in release {RELEASE}"
        raise DownloadError(public, found, advice)
    return str(own["eid"].iloc[0]), set(own["uuids"].astype(str))


def _probe_of(session: dict[str, Any], units: set[str], folder: Path, downloader: Downloader) -> str:
    """The name of the probe that the `units` were recorded with: the one whose table of unit ids holds them."""
    newest = newest_revisions(session["datasets"], None)
    tables = {path: match[1] for path in newest if (match := re.fullmatch(UUIDS, path))}
    for path, probe in tables.items():
        file = remote_file(newest[path], session, f"{downloader.endpoints.ibl_public}/data", folder)
        # Kept beside the release's tables: in the session's folder it would look like a probe to read.
        place = folder.parent / "tables/units" / f"{newest[path]['id']}.csv"
        text = downloader.fetch(replace(file, path=place)).file.path.read_text()
        if units & set(text.split()):
            return probe
    found = f"{len(tables)} probes, none with these units"
    raise DownloadError(f"ibl:{session['eid']}", found, "the session's id (eid) and the option `probes`")


def choose(
    datasets: Iterable[dict[str, Any]], options: dict[str, Any], probe: str | None, where: str
) -> list[dict[str, Any]]:
    """The datasets that reading with `options` needs, each in the newest revision not after the option `revision`.

    Where only good units are wanted and the release has their spikes as a file of their own, that one is taken.
    """
    newest = newest_revisions(datasets, options.get("revision"))
    chosen = next(filter(None, (_of_task(newest, kind) for kind in TRIALS)), [])
    for name in _signals(options.get("signals")):
        chosen += _of_task(newest, SIGNALS[name])
    for collection in chosen_sortings(newest, options.get("probes") or probe, options.get("sorter"), where):
        good = options.get("min_label", GOOD) == GOOD and f"{collection}/{PASSING}" in newest
        parent = collection.rpartition("/")[0]
        wanted = [f"{collection}/{name}" for name in ((PASSING,) if good else SPIKES)]
        wanted += [f"{collection}/{name}" for name in CLUSTERS]
        wanted += [f"{folder}/{name}" for folder in (collection, parent) for name in CHANNELS]
        chosen += [path for path in wanted if path in newest]
    return [newest[path] for path in dict.fromkeys(chosen)]


def newest_revisions(datasets: Iterable[dict[str, Any]], revision: str | None) -> dict[str, dict[str, Any]]:
    """Datasets by their path without revision, the newest not after `revision` of each."""
    found = newest_of(((dataset["path"], dataset) for dataset in datasets), revision)
    return {path: found[path][0] for path in sorted(found)}


def _of_task(paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The datasets of a task whose names match one of `patterns`."""
    wanted = re.compile(f"{TASK}/(?:{'|'.join(patterns)})")
    return [path for path in paths if wanted.fullmatch(path)]


def _signals(names: Names | None) -> tuple[str, ...]:
    chosen = ("wheel", *as_tuple(names))
    for name in chosen:
        if name not in SIGNALS:
            raise InputError("source ibl", "option signals", repr(name), ", ".join(SIGNALS))
    return chosen
