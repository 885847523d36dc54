"""Sources: whatever a session was stored as becomes a Recording.

A source is a module of this package, or a user's own Python file, with a frozen dataclass `Options`, each field
documented, and ``read(session, location, options) -> Recording``. ``locate(location)`` gives the file or folder of the
session at or in a location, which is else the location itself; ``files(location, options)`` all files that are read,
which are else that file, or all in that folder.

A way through the files, each of which needs those above it only::

    location, options, origin           where a session's files are, what is asked of them, where they came from
    spikes, presence, candidates        spikes and units: checked, observed when, chosen from
    trials, signals, selection          trials, signals, and the units that are kept: the options that sources share
    hdf, columns, given_units, seconds  tables in files of any form, and what only a user knows of them
    cells, companions, tables           spikes and what lies beside them in tables of a user's own
    chunks, phy                         tables of counts; the folder of a spike sorter
    nwb                                 any NWB file
    nlb_responses, nlb                  files of the Neural Latents Benchmark
    neuroformer_dictionary              data of the public Neuroformer code
    presentations, allen_trials         Allen sessions: stimuli become trials,
    allen_signals, digests, films       behaviour, frames,
    allen                               and all of it
    alf, ibl_trials, ibl_signals, ibl   IBL sessions: the folder, trials, behaviour, and all of it
    endpoints, transport, progress      one request of one server
    part, ledger, shared, download      files fetched whole, resumed, verified, once
    remote, fetched                     what a location may say, and what was fetched from it
    fetch_dandi, fetch_allen            sessions of DANDI and of the Allen Institute,
    ranges, subset                      of the latter only the units asked for,
    isolated, sdk                       or through AllenSDK
    alyx, ibl_release, fetch_ibl        sessions of IBL, of a database or its release,
    voltage                             and a second of raw voltage
    fetch, catalogue                    a session fetched, whatever its source; sessions there are to fetch
"""

from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.own_code import import_file, running
from pipeline_lib.sources.options import parse_options

if TYPE_CHECKING:
    from pipeline_lib.recording import Recording

SOURCES = ("tables", "phy", "chunks", "nlb", "nwb", "allen", "ibl", "neuroformer_dictionary")
TRUTH, STIMULUS = "truth.zarr", "stimulus.zarr"
OWN = ".py"
"""How the name of a source ends that is a file of the user's."""
LONGEST = 1e7
"""Seconds, some hundred days."""


def check_options(source: str, options: dict[str, Any] | None = None) -> Any:
    """The `Options` of `source` filled with `options`, without touching data.

    Raises
    ------
    InputError : an unknown source or option (with the nearest known one), a value the option does not accept, or a
        Python file that is no source.
    """
    return parse_options(source, _module(source).Options, options or {})


def source_code(source: str) -> str | Path:
    """The module of a source of this package, by its dotted name, or the path of a user's Python file."""
    return Path(source).expanduser() if source.endswith(OWN) else f"{__name__}.{source}"


def read_source(source: str, session: str, location: Path | str, options: dict[str, Any] | None = None) -> "Recording":
    """Read the session at `location` (a file or folder, as the source says) and validate it. `source` is one of
    `SOURCES`, or the path of a Python file.

    Where the session was fetched, its fetch.json says release, licence and citation, and what its files must hash to. A
    `truth.zarr` beside the session's file, or in its folder, is taken along for the units that were kept, and so is a
    `stimulus.zarr` where the source itself reads no frames.

    Raises
    ------
    InputError : the options, the files or what stands in them are not as they should be.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("day1.csv").write_text("t,cluster\\n0.5,7\\n0.75,9\\n1.25,7\\n")
    >>> recording = read_source("tables", "day1", "day1.csv", {"time": "t", "unit": "cluster"})
    >>> recording.units["unit_id"].tolist(), recording.spike_times.tolist()
    (['7', '9'], [0.5, 0.75, 1.25])
    """
    from pipeline_lib.recording import Recording, Truth
    from pipeline_lib.sources.location import reading
    from pipeline_lib.sources.origin import add_origin

    values, module = options or {}, _module(source)
    chosen, place = parse_options(source, module.Options, values), _place(module, Path(location))
    accepted = f"a Recording of {place}"
    with running(Path(source), accepted) if source.endswith(OWN) else nullcontext():
        recording: Recording = module.read(session, place, chosen)
    if not isinstance(recording, Recording):
        raise InputError(source, "read", type(recording).__name__, accepted)
    recording.provenance.selection = {name: values[name] for name in sorted(values)}
    add_origin(recording.provenance, Path(location))
    recording.validate(place)
    _check_span(recording, place)
    folder = place if place.is_dir() else place.parent
    if recording.stimulus is None and (folder / STIMULUS).exists():
        from pipeline_lib.stimulus import Stimulus

        with reading(folder / STIMULUS, "stimulus"):
            recording.stimulus = Stimulus.read(folder / STIMULUS)
    truth = folder / TRUTH
    if truth.exists():
        with reading(truth, "truth"):
            recording.truth = Truth.read(truth).select_units(list(recording.units["unit_id"]))
    return recording


def session_files(source: str, location: Path | str, options: dict[str, Any] | None = None) -> list[Path]:
    """The files that `read_source` would look at: when one of them changes, the recording is another one.

    Raises
    ------
    InputError : there is no session at `location`, or an option names a file that is not there.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("day2.csv").write_text("time,unit\\n0.5,7\\n"), Path("trials2.csv").write_text("start,stop\\n0,1\\n")
    >>> [file.name for file in session_files("tables", "day2.csv", {"trials": "trials2.csv"})]
    ['day2.csv', 'trials2.csv']
    """
    module = _module(source)
    place = _place(module, Path(location))
    folder = place if place.is_dir() else place.parent
    if hasattr(module, "files"):
        found = module.files(place, parse_options(source, module.Options, options or {}))
    else:
        found = _below(place) if place.is_dir() else [place]
    return list(dict.fromkeys([*found, *_below(folder / STIMULUS), *_below(folder / TRUTH)]))


def _below(folder: Path) -> list[Path]:
    """The files in a folder and in its folders but hidden ones (locks, parts of downloads), in order."""
    found = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in found if not any(part[0] == "." for part in file.relative_to(folder).parts))


def _check_span(recording: "Recording", place: Path) -> None:
    """Refuse times that no session has: most often they are samples or milliseconds, taken for seconds."""
    times = recording.trials[["start", "stop"]].to_numpy(dtype=float)
    furthest = max(recording.duration, float(abs(times).max(initial=0)))
    if furthest > LONGEST:
        raise InputError(place, "times", f"{furthest:g} s", f"a session of at most {LONGEST:g} s (are these seconds?)")


def _place(module: ModuleType, location: Path) -> Path:
    """The file or folder of the session."""
    if hasattr(module, "locate"):
        return Path(module.locate(location))
    if not location.exists():
        raise InputError(location, "location", "no such file or folder", "an existing file or folder")
    return location


def _module(source: str) -> ModuleType:
    if source.endswith(OWN):
        own = import_file(Path(source).expanduser(), "source")
        for name in ("Options", "read"):
            if not hasattr(own, name):
                raise InputError(source, name, "nothing", "`Options` and `read`, as pipeline_lib.sources says")
        return own
    # Imported by name, not by a computed name: the workflow hashes the code that reading a session runs through.
    from pipeline_lib.sources import allen, chunks, ibl, neuroformer_dictionary, nlb, nwb, phy, tables

    modules = dict(zip(SOURCES, (tables, phy, chunks, nlb, nwb, allen, ibl, neuroformer_dictionary), strict=True))
    if source not in modules:
        accepted = suggest(str(source), list(SOURCES)) + " (or the path of a Python file)"
        raise InputError("sessions", "source", repr(source), accepted)
    return modules[source]
