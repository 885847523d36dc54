"""What a coupled GLM writes down beside its rates: who drives whom, filters, basis, an excerpt of the inputs.

Tables (Parquet, one row a thing, of all sessions of a fit): `couplings`, `filters`, `basis`, `inputs`. Figures read
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_lib.clock import to_seconds
from pipeline_lib.models.glm.frames import lay_frames, read_frames
from pipeline_lib.models.glm.inputs import Inputs

if TYPE_CHECKING:
    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.glm.model import CoupledGLM

SHOWN_BINS, SHOWN_SENDERS = 150, 5
"""Of the excerpt of the inputs."""


def tables_of(model: CoupledGLM, data: FitData) -> dict[str, pd.DataFrame]:
    """All tables of a fit.

    couplings : session, sender, receiver (unit_id), sender_region, receiver_region, allowed (by the mask), strength
        (sum over lags, log-rate per spike), peak (value of largest size), peak_lag (ms), p and q of "no coupling" (NaN
        without inference). A row an ordered pair of different units whose sender was held in.
    filters : session, sender, receiver, lag (ms), value, error (standard error, NaN without inference), a unit's own
        history included, pairs that are not allowed left out.
    basis : session, function, lag (ms), value.
    inputs : session, time (s), column, value: the first bins of training as the fit sees them, of the first senders.
    scores : `coupling_share`, where a session has several populations: see `share.coupling_share`.
    """
    from pipeline_lib.models.glm.share import share_scores

    found: dict[str, list[pd.DataFrame]] = {"couplings": [], "filters": [], "basis": [], "inputs": []}
    for session in data.sessions:
        units = data.trains[session].units
        parts = {
            "couplings": model.coupling_table(session, units),
            "filters": _filters(model, session, units),
            "basis": _basis(model.learned[session]),
            "inputs": _inputs(model, data, session),
        }
        for name, part in parts.items():
            part.insert(0, "session", session)
            found[name].append(part)
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}
    scores = share_scores(model, data)
    return tables | {"scores": scores} if len(scores) else tables


def _filters(model: CoupledGLM, session: str, units: pd.DataFrame) -> pd.DataFrame:
    learned, found = model.learned[session], model.couplings(session)
    senders, lags = learned["senders"], len(learned["kernel"])
    sender, receiver = np.nonzero(learned["allowed"])
    ids = units["unit_id"].astype(str)
    error = np.full((len(sender), lags), np.nan, dtype=np.float32)
    if "filter_errors" in learned:
        error = learned["filter_errors"][sender, receiver]
    names = pd.Categorical(ids, categories=ids.unique())
    return pd.DataFrame(
        {
            "sender": names[np.repeat(senders[sender], lags)],
            "receiver": names[np.repeat(receiver, lags)],
            "lag": np.tile((np.arange(lags) + 1) * found.bin_size, len(sender)).astype(np.float32),
            "value": found.filters[senders[sender], receiver].ravel(),
            "error": error.ravel(),
        }
    )


def _basis(learned: dict[str, np.ndarray]) -> pd.DataFrame:
    kernel = learned["kernel"]
    lags, functions = kernel.shape
    lag = np.repeat((np.arange(lags) + 1) * float(learned["bin_size"][0]), functions)
    return pd.DataFrame({"function": np.tile(np.arange(functions), lags), "lag": lag, "value": kernel.ravel()})


def _inputs(model: CoupledGLM, data: FitData, session: str) -> pd.DataFrame:
    """The design matrix of the first bins, which the fit itself never builds."""
    learned = model.learned[session]
    kernel, senders = learned["kernel"], learned["senders"][:SHOWN_SENDERS]
    first = data.samples(session, "train").sort_values("start_tick").iloc[:1]
    layout = lay_frames(data, first, len(kernel), merge=False)
    scored = np.arange(*layout.segments[0])[:SHOWN_BINS]
    counts = read_frames(data, session, layout)[0][:, senders].astype(np.float64)
    past = np.lib.stride_tricks.sliding_window_view(counts, len(kernel), axis=0)[scored - len(kernel)]
    ids = data.trains[session].units["unit_id"].astype(str).to_numpy()
    names = [f"{ids[sender]}, {function}" for sender in senders for function in range(kernel.shape[1])]
    values = (past @ kernel[::-1]).reshape(len(scored), -1)
    inputs = Inputs(data, session, model.config.inputs, learned)
    others = inputs.columns(layout, scored)
    if others is not None:
        names, values = inputs.names() + names, np.concatenate([others, values], axis=1)
    time = to_seconds(layout.ticks(scored))
    columns = {"time": np.repeat(time, len(names)), "column": np.tile(np.array(names, dtype=object), len(time))}
    return pd.DataFrame(columns | {"value": values.ravel()})
