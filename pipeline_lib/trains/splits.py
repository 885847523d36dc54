"""Which windows and units are for training, for choosing, and for testing: written once, read by every model."""

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_lib import clock
from pipeline_lib.errors import InputError, refuse_rows, suggest
from pipeline_lib.files import atomic_file
from pipeline_lib.trains.leakage import check_leakage
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.windows import windows

if TYPE_CHECKING:
    from pipeline_lib.trains.store import Trains

PARTS = ("train", "validation", "test")
PREDICTED = PARTS[1:]
"""What every fit publishes predictions of, and scores are made from."""
LONGEST_NAME = 200
"""Signs of a session's name, which is a folder's in the predictions: file systems take 255 bytes."""
COLUMN = "split"
"""Of the trials table: the part of a trial, where its source says."""


@dataclass(eq=False)
class Split:
    """The samples of a cohort and the part each is in.

    `samples` : the columns of `windows` and `split`; the row number is the sample's id. `heldout` : rows of the
    held-out units of every session. `forward_bins` : bins at the end of each window held out for forward prediction.
    `event` : column of the trials table that windows are aligned to, "" in continuous mode; `before` : seconds from a
    window's start to that event.

    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.store import Trains
    >>> trains = Trains.from_recording(simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="demo"))
    >>> split = make_split([trains], WindowSettings(bin_size=20), SplitSettings(), cohort="demo")
    >>> split.part("demo", "test")[["start_tick", "bins", "condition"]].shape
    (4, 3)
    >>> split.write("split.parquet")
    >>> Split.read("split.parquet").samples.equals(split.samples)
    True
    """

    samples: pd.DataFrame
    heldout: dict[str, np.ndarray]
    forward_bins: int
    bin_size: float
    history_bins: int
    cohort: str
    event: str = ""
    before: float = 0.0

    @property
    def bin_ticks(self) -> int:
        """Ticks in a bin."""
        return clock.bin_ticks(self.bin_size)

    @property
    def sessions(self) -> list[str]:
        """Session ids, in the order of the cohort."""
        return list(self.heldout)

    def part(self, session: str, name: str) -> pd.DataFrame:
        """The samples of one session in one part; the index is the sample id. InputError for a name that is none."""
        for field, given, known in (("part", name, PARTS), ("session", session, self.sessions)):
            if given not in known:
                raise InputError(f"split of cohort {self.cohort}", field, repr(given), suggest(given, known))
        samples = self.samples
        return samples[(samples["session"] == session) & (samples["split"] == name)]

    def write(self, path: Path | str) -> None:
        """Write as one Parquet file; what is not a column goes to its schema metadata as JSON."""
        import pyarrow
        import pyarrow.parquet as parquet

        header = {name: value for name, value in vars(self).items() if name != "samples"}
        header["heldout"] = {session: rows.tolist() for session, rows in self.heldout.items()}
        table = pyarrow.Table.from_pandas(self.samples, preserve_index=False)
        table = table.replace_schema_metadata({b"trainyard": json.dumps(header).encode()})
        with atomic_file(path) as part:
            parquet.write_table(table, part, compression="zstd")

    @classmethod
    def read(cls, path: Path | str) -> "Split":
        """Read what `write` wrote. Raises InputError where it is not such a file."""
        import pyarrow.parquet as parquet

        try:
            table = parquet.read_table(path)
            header = json.loads(table.schema.metadata[b"trainyard"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            found = "no such file" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"
            raise InputError(path, "split", found, "a split this package wrote") from error
        header["heldout"] = {session: np.array(rows, np.int64) for session, rows in header["heldout"].items()}
        return cls(samples=table.to_pandas().astype({"session": "str", "condition": "str", "split": "str"}), **header)


def make_split(trains: Sequence["Trains"], windows: WindowSettings, settings: SplitSettings, cohort: str) -> Split:
    """Cut every session into windows and give each window a part.

    The same sessions, settings and seed give the same split. A session's parts and held-out units do not depend on
    which other sessions are in the cohort.

    Raises
    ------
    InputError : a session whose name no folder can have, or without a window in some part, fewer units than are held
        out, a bad split file, or a part that would read bins another part is scored on.

    Examples
    --------
    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.store import Trains
    >>> trains = Trains.from_recording(simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="demo"))
    >>> split = make_split([trains], WindowSettings(bin_size=20), SplitSettings(heldout_units=5), cohort="demo")
    >>> split.samples["split"].value_counts().to_dict(), len(split.heldout["demo"])
    ({'train': 14, 'test': 4, 'validation': 2}, 5)
    """
    names = [session.session for session in trains]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"cohort {cohort}", "sessions", f"{name} twice", "every session once")
        if not 0 < len(name) < LONGEST_NAME or "/" in name or name in (".", ".."):
            raise InputError(f"cohort {cohort}", "sessions", repr(name), "names that predictions can be stored under")
    frames = [_split_session(session, windows, settings) for session in trains]
    heldout = {session.session: _heldout_units(session, settings) for session in trains}
    aligned = windows.mode == "trials"
    split = Split(
        samples=pd.concat(frames, ignore_index=True),
        heldout=heldout,
        forward_bins=clock.duration_bins(settings.forward, windows.bin_size, "splits.forward"),
        bin_size=windows.bin_size,
        history_bins=windows.history_bins,
        cohort=cohort,
        event=windows.align if aligned else "",
        before=windows.before if aligned else 0.0,
    )
    shortest = int(split.samples["bins"].min())
    if not 0 <= split.forward_bins < shortest:
        accepted = f"less than the shortest window, {shortest} bins of {windows.bin_size} ms"
        raise InputError("config", "splits.forward", f"{settings.forward} s", accepted)
    check_leakage(split)
    return split


def _split_session(trains: "Trains", settings: WindowSettings, split: SplitSettings) -> pd.DataFrame:
    frame = windows(trains, settings)
    scheme = split.scheme
    if scheme == "auto":
        scheme = "trials" if settings.mode == "trials" else "blocks"
    parts = SCHEMES[scheme](frame, trains, settings, split)
    frame = _fewer_to_train(frame.assign(split=parts)[parts != ""], trains, split)
    for name, share in zip(PARTS, split.fractions, strict=True):
        if (share or scheme in ("column", "file")) and not (frame["split"] == name).any():
            kind = "trial" if settings.mode == "trials" else "window"
            accepted = "at least one in train, validation and test (more trials, shorter blocks, other fractions)"
            where = f"session {trains.session}"
            raise InputError(where, f"splits ({scheme})", f"no {kind} in the split part {name}", accepted)
    return frame.astype({"split": "str"})


def _fewer_to_train(frame: pd.DataFrame, trains: "Trains", split: SplitSettings) -> pd.DataFrame:
    """Without the training windows beyond `train_share` of them, drawn at random, at least one a session staying."""
    train = np.flatnonzero(frame["split"] == "train")
    used = math.ceil(split.train_share * len(train) - 1e-9)
    left_out = _random(trains, split, purpose=2).permutation(train)[used:]
    return frame.drop(frame.index[left_out])


def _random(trains: "Trains", split: SplitSettings, purpose: int) -> np.random.Generator:
    """A generator of its own for each session and purpose: holding out units does not move a trial to another part."""
    return np.random.default_rng([split.seed, purpose, zlib.crc32(trains.session.encode())])


def _by_trials(frame: pd.DataFrame, trains: "Trains", settings: WindowSettings, split: SplitSettings) -> np.ndarray:
    """Windows drawn at random within each condition; conditions with fewer windows than parts are pooled."""
    random = _random(trains, split, purpose=0)
    condition = frame["condition"].to_numpy(dtype=object)
    names, counts = np.unique(condition, return_counts=True)
    common = names[counts >= len(PARTS)]
    groups = [np.flatnonzero(condition == name) for name in common]
    groups.append(np.flatnonzero(~np.isin(condition, common)))
    order = np.concatenate([random.permutation(group) for group in groups if len(group)])
    # Parts are dealt along the groups with the error carried on, so that each group and the whole keep the fractions.
    parts = np.empty(len(frame), dtype=object)
    parts[order] = np.array(PARTS, dtype=object)[_deal(len(frame), np.array(split.fractions))]
    return parts


def _by_blocks(frame: pd.DataFrame, trains: "Trains", settings: WindowSettings, split: SplitSettings) -> np.ndarray:
    """Contiguous blocks of time drawn at random; a window is kept if it and the gap before it lie in its own part."""
    gap, history = settings.history if split.gap is None else split.gap, settings.history
    if gap < history:
        raise InputError("config", "splits.gap", f"{gap} s", f"at least the history of the windows, {history} s")
    gap_ticks, block_ticks = int(clock.to_ticks(gap)), int(clock.to_ticks(split.block))
    begin = frame["start_tick"].to_numpy()
    stop = begin + frame["bins"].to_numpy() * settings.bin_ticks
    # Blocks are numbered by the windows that start in them: a pause of the recording takes no part's share.
    first, last, before = ((ticks - begin.min()) // block_ticks for ticks in (begin, stop - 1, begin - gap_ticks))
    occupied = np.unique(first)
    first, last, before = (np.searchsorted(occupied, block, side="right") - 1 for block in (first, last, before))
    part = _random(trains, split, purpose=0).permutation(_deal(len(occupied), np.array(split.fractions)))
    run = np.cumsum(np.r_[0, np.diff(part) != 0])
    whole = (run[last] == run[first]) & (run[before.clip(min=0)] == run[first])
    return np.where(whole, np.array(PARTS, dtype=object)[part[first]], "")


def _deal(count: int, fractions: np.ndarray) -> np.ndarray:
    """Parts 0, 1, 2 for `count` windows in a row such that every stretch of them keeps to the fractions.

    Every part with a share gets at least one, if there are as many windows as parts.
    """
    sizes = np.maximum(np.round(count * fractions), fractions > 0).astype(np.int64)
    sizes[0] = max(count - sizes[1:].sum(), 1)
    # The k-th of n windows of a part stands at (k - 1/2) / n of the way.
    part = np.repeat(np.arange(len(fractions)), sizes)
    place = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    return part[np.lexsort((part, place))][:count]


def _by_column(frame: pd.DataFrame, trains: "Trains", settings: WindowSettings, split: SplitSettings) -> np.ndarray:
    """Parts as the trials' own column `split` names them; a window of another name, or of no trial, is left out."""
    if COLUMN not in trains.trials:
        accepted = "a source whose trials have that column, or another scheme"
        raise InputError(f"session {trains.session}, trials", COLUMN, "no such column", accepted)
    names = trains.trials[COLUMN].astype(str).to_numpy(dtype=object)
    trial = frame["trial"].to_numpy()
    return np.where((trial >= 0) & np.isin(names[trial], PARTS), names[trial], "")


def _by_file(frame: pd.DataFrame, trains: "Trains", settings: WindowSettings, split: SplitSettings) -> np.ndarray:
    """Parts as the user's table names them."""
    path = Path(str(split.file))
    table = _read_split_file(path)
    if "session" in table.columns:
        table = table[table["session"].astype(str) == trains.session]
    unknown = sorted(map(str, set(table["split"]) - set(PARTS)))
    if unknown:
        raise InputError(path, "split", unknown[0], f"one of {', '.join(PARTS)}")
    names = table["split"].to_numpy(dtype=object)
    parts = np.full(len(frame), "", dtype=object)
    if "trial" in table.columns:
        trial = _numbers(path, table, "trial")
        known, count = np.unique(trial, return_counts=True)
        if (count > 1).any():
            raise InputError(path, "trial", f"trial {known[count > 1][0]:g} twice", "one row a trial")
        strange = known[~np.isin(known, np.arange(len(trains.trials)))]
        if len(strange):
            accepted = f"rows of the trials of session {trains.session}, 0 to {len(trains.trials) - 1}"
            raise InputError(path, "trial", f"{strange[0]:g}", accepted)
        named = dict(zip(trial, names, strict=True))
        return np.array([named.get(row, "") for row in frame["trial"]], dtype=object)
    begin = frame["start_tick"].to_numpy()
    stop = begin + frame["bins"].to_numpy() * settings.bin_ticks
    first, last = (clock.to_ticks(_numbers(path, table, column)) for column in ("start", "stop"))
    refuse_rows(last < first, path, "stop", table["stop"].to_numpy(), "a stop not before its start")
    for from_tick, to_tick, name in zip(first, last, names, strict=True):
        inside = (begin >= from_tick) & (stop <= to_tick)
        other = parts[inside & (parts != "") & (parts != name)]
        if len(other):
            accepted = "stretches of different parts that hold no window both"
            raise InputError(path, "split", f"a window of {other[0]} that is of {name}, too", accepted)
        parts[inside] = name
    return parts


SCHEMES = {"trials": _by_trials, "blocks": _by_blocks, "column": _by_column, "file": _by_file}


def _read_split_file(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(path, "splits.file", str(error).splitlines()[0], "a readable Parquet or CSV table") from error
    if "split" not in table.columns or not ("trial" in table.columns or {"start", "stop"} <= set(table.columns)):
        accepted = "a column split, and either trial or start and stop"
        raise InputError(path, "columns", list(table.columns), accepted)
    return table


def _numbers(path: Path, table: pd.DataFrame, column: str) -> np.ndarray:
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    refuse_rows(~np.isfinite(values), path, column, table[column].to_numpy(), "a number in every row")
    return values


def _heldout_units(trains: "Trains", split: SplitSettings) -> np.ndarray:
    """Rows of the held-out units (sorted), the same share of every population as far as whole units allow."""
    units = trains.n_units
    if isinstance(split.heldout_units, str):
        return _marked_units(trains, split.heldout_units)
    share = split.heldout_units
    count = max(round(share * units), 1) if 0 < share < 1 else int(share)
    if count >= units:
        accepted = f"fewer than the session's {units} units"
        raise InputError(f"session {trains.session}", "splits.heldout_units", split.heldout_units, accepted)
    if not count:
        return np.empty(0, np.int64)
    random = _random(trains, split, purpose=1)
    population = trains.units["population"].to_numpy(dtype=object)
    order = random.permutation(units)
    order = order[np.argsort(pd.factorize(population[order], sort=True)[0], kind="stable")]
    # Every (units / count)-th unit along the populations, from a random place.
    chosen = ((np.arange(count) + random.random()) * units / count).astype(np.int64)
    return np.sort(order[chosen])


def _marked_units(trains: "Trains", column: str) -> np.ndarray:
    """Rows of the units for which a column of their table is True."""
    where = f"session {trains.session}, units"
    if column not in trains.units or trains.units[column].dtype.kind != "b":
        raise InputError(where, "splits.heldout_units", repr(column), "a column of True and False, a share or a count")
    marked = trains.units[column].to_numpy(dtype=bool)
    if marked.all():
        raise InputError(where, column, "True for every unit", "units that may be inputs, too")
    return np.flatnonzero(marked)
