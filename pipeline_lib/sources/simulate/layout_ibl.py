"""A session as an IBL folder: ALF files of one probe, the trials table and ONE's cache tables.

The columns of the real trials table are all there; those the recording lacks hold made-up values of a mouse that
always sees the stimulus on the left and answers. The recording's condition has a column of its own.
"""

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.files import whole_directory

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

LAB, DATE, NUMBER = "simulatedlab", "2020-01-01", "001"
PROBE, SORTER = "probe00", "pykilosort"
ROOT = uuid.uuid5(uuid.NAMESPACE_DNS, "simulated.sessions")
CREATED = "2020-01-01 00:00"
CHANNEL_PITCH = 20.0  # um
AMPLITUDE = 1e-4  # V


def write_ibl(recording: "Recording", directory: Path) -> Path:
    """Write `directory` as a ONE cache of one session; return the session folder, which the source `ibl` reads."""
    subject = re.sub(r"[^-.\w]", "_", recording.session)
    session = Path(LAB, "Subjects", subject, DATE, NUMBER)
    with whole_directory(directory, final="sessions.pqt") as writing:
        alf = writing / session / "alf"
        sorting = alf / PROBE / SORTER
        sorting.mkdir(parents=True)
        write_sorting(recording, sorting)
        trials_table(recording.trials).to_parquet(alf / "_ibl_trials.table.pqt", index=False)
        write_cache_tables(writing)
        if recording.truth is not None:
            recording.truth.write(writing / session / "truth.zarr")
    return directory / session


def write_sorting(recording: "Recording", folder: Path) -> None:
    """The spikes, clusters and channels of a probe: one cluster and one channel a unit."""
    import pandas as pd

    count = len(recording.units)
    depths = np.arange(count) * CHANNEL_PITCH
    clusters = recording.spike_units.astype(np.int32)
    arrays: dict[str, np.ndarray] = {
        "spikes.times": recording.spike_times.astype(np.float64),
        "spikes.clusters": clusters,
        "spikes.amps": np.full(len(clusters), AMPLITUDE, dtype=np.float32),
        "spikes.depths": depths[clusters].astype(np.float32),
        "clusters.channels": np.arange(count, dtype=np.int32),
        "clusters.depths": depths,
        "channels.brainLocationIds_ccf_2017": location_ids(recording.units["region"].tolist()),
        "channels.mlapdv": np.zeros((count, 3), dtype=np.int32),
        "channels.localCoordinates": np.stack([np.zeros(count), depths], axis=1),
        "channels.rawInd": np.arange(count, dtype=np.int32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    spikes = np.bincount(clusters, minlength=count)
    seconds = float(np.diff(recording.observed, axis=1).sum())
    metrics = {"cluster_id": np.arange(count), "label": 1.0, "firing_rate": spikes / seconds, "spike_count": spikes}
    pd.DataFrame(metrics).to_parquet(folder / "clusters.metrics.pqt", index=False)
    uuids = recording.units["unit_id"].rename("uuids")
    uuids.to_csv(folder / "clusters.uuids.csv", index=False)


def location_ids(regions: list[str]) -> np.ndarray:
    """Ids of the Allen CCF 2017 for acronyms (units,). A label the atlas does not know is root, "in the brain".

    Raises
    ------
    InputError : two such labels, which the layout could not tell apart.
    """
    from iblatlas.regions import BrainRegions

    atlas = BrainRegions()
    # The atlas lists every region twice, left and right; the side is the sign of its id.
    ids = dict(zip(atlas.acronym.tolist(), np.abs(atlas.id).tolist(), strict=True))
    unknown = [region for region in dict.fromkeys(regions) if region not in ids]
    if len(unknown) > 1 or (unknown and "root" in regions):
        accepted = "acronyms of the Allen CCF, such as VISp, VISl, MOs or CA1, and at most one other label"
        raise InputError("layout ibl", "units.region", ", ".join(map(repr, unknown)), accepted)
    return np.array([ids.get(region, ids["root"]) for region in regions], dtype=np.int64)


def trials_table(trials: "pd.DataFrame") -> "pd.DataFrame":
    """The trials with IBL's columns."""
    import pandas as pd

    start, stop = trials["start"], trials["stop"]
    made_up = {
        "stimOn_times": start,
        "goCue_times": start,
        "firstMovement_times": (start + stop) / 2,
        "response_times": stop,
        "feedback_times": stop,
        "contrastLeft": 1.0,
        "contrastRight": np.nan,
        "probabilityLeft": 0.5,
        "choice": 1.0,
        "feedbackType": 1.0,
        "rewardVolume": 1.5,
    }
    own = trials.rename(columns={"start": "intervals_0", "stop": "intervals_1"})
    missing = {name: values for name, values in made_up.items() if name not in own}
    return pd.concat([own, pd.DataFrame(missing, index=own.index)], axis=1)


def write_cache_tables(root: Path) -> None:
    """ONE's tables of all sessions and datasets under `root`, with ids that follow from the paths.

    ONE itself draws ids from the clock and the machine, and notes the time in the tables.
    """
    from iblutil.io import parquet
    from one.alf.cache import make_parquet_db

    files = make_parquet_db(root, hash_ids=False)
    sessions, datasets = (parquet.load(file)[0] for file in files)
    datasets["id"] = [str(uuid.uuid3(ROOT, path)) for path in datasets["eid"] + "/" + datasets["id"]]
    datasets["eid"] = [str(uuid.uuid3(ROOT, path)) for path in datasets["eid"]]
    sessions["id"] = [str(uuid.uuid3(ROOT, path)) for path in sessions["id"]]  # ONE knows no version 5
    datasets["default_revision"] = True
    described = {"date_created": CREATED, "origin": LAB}
    parquet.save(files[0], sessions.set_index("id").sort_index(), described)
    parquet.save(files[1], datasets.set_index(["eid", "id"]).sort_index(), described)
