"""Tables of a fit's couplings: pairs of units, pairs of populations, and the weights of units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy import stats

from pipeline_lib.models.glm.inference import coupling_table, false_discovery_rate
from pipeline_lib.models.glm.share import share_row, variance_share
from pipeline_lib.models.glm_transformer.inference import evidence, permutation_test, weight_errors
from pipeline_lib.models.glm_transformer.readout import area_filters
from pipeline_lib.models.glm_transformer.timing import timing_test
from pipeline_lib.models.glm_transformer.unit_scores import unit_scores

AREA_COLUMNS = ["sender", "receiver", "factor", "strength", "peak", "delay", "gain", "p", "z", "p_timing"]

if TYPE_CHECKING:
    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.glm_transformer.model import GLMTransformerModel


def coupling_tables(model: GLMTransformerModel, data: FitData) -> dict[str, pd.DataFrame]:
    """The tables by name; rows of all sessions, column `session` first.

    `loadings`, a row a unit: unit_id, region, population, bias, `background_{k}`, and for every coupled population
    `send_{population}_{k}` and `receive_{population}_{k}` with their standard errors (`..._se`).
    `area_couplings`, a row a coupled pair of populations and factor: strength (sum of the filter over lags), peak,
    delay (ms of the peak), gain (nats a spike of the receivers by which test trials paired truly beat those paired at
    random) and its p, which common input makes small too; z and p_timing of the test that it does not
    (`timing.timing_test`, test trials), and q, their false-discovery rate over the pairs of the session.
    `area_filters`, a row a lag (ms) of these filters; `history_filters`, a row a unit and lag: log-rate per spike.
    `unit_scores`, a row a held-in unit: see `unit_scores.unit_scores`.
    `couplings`, a row a pair of units: as `coupling_table` of the GLM, p and q of "no coupling" there.
    `scores`, `coupling_share` of the sessions with test windows: see `coupling_share`.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for session in data.sessions:
        for name, table in _session_tables(model, data, session).items():
            found.setdefault(name, []).append(table.assign(session=session)[["session", *table.columns]])
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def _session_tables(model: GLMTransformerModel, data: FitData, session: str) -> dict[str, pd.DataFrame]:
    head = model.network.head(session)
    units = data.trains[session].units
    loadings = units[["unit_id", "region", "population"]].reset_index(drop=True)
    loadings["bias"] = head.bias.detach().cpu().numpy()
    readout = head.readout.detach().cpu().numpy()
    loadings = loadings.assign(**{f"background_{k}": readout[:, k] for k in range(readout.shape[1])})
    own = {"loadings": loadings, "unit_scores": unit_scores(model, data, session)}
    if model.config.history != "none":
        own["history_filters"] = _history_table(model, session, units["unit_id"].to_numpy())
    if model.config.coupling == "none":
        return own
    weights, errors = _weights(model, data, session)
    for kind, values in weights.items():
        for area, name in enumerate(model.network.areas):
            for factor in range(model.config.rank):
                loadings[f"{kind}_{name}_{factor}"] = values[:, area, factor]
                loadings[f"{kind}_{name}_{factor}_se"] = errors[kind][:, area, factor]
    return own | {
        "area_couplings": _area_table(model, data, session),
        "area_filters": _filter_table(model, session),
        "couplings": _unit_table(model, data, session, weights, errors),
        **_scores(model, data, session),
    }


def _history_table(model: GLMTransformerModel, session: str, unit_id: np.ndarray) -> pd.DataFrame:
    network = model.network
    values = network.history_kernels(network.head(session)).detach().cpu().numpy()
    lags = (np.arange(len(values)) + 1) * model.layout.bin_size
    columns = {"unit_id": np.repeat(unit_id, len(lags)), "lag": np.tile(lags, len(unit_id))}
    return pd.DataFrame({**columns, "value": values.T.ravel()})


def _filter_table(model: GLMTransformerModel, session: str) -> pd.DataFrame:
    network, filters = model.network, area_filters(model.network, session)
    lags = (np.arange(filters.shape[3]) + 1) * model.layout.bin_size
    rows = []
    for sender, receiver in network.head(session).coupled.nonzero().tolist():
        for factor, values in enumerate(filters[sender, receiver]):
            names = {"sender": network.areas[sender], "receiver": network.areas[receiver], "factor": factor}
            rows.append(pd.DataFrame({**names, "lag": lags, "value": values}))
    empty = pd.DataFrame(columns=["sender", "receiver", "factor", "lag", "value"])
    return pd.concat(rows, ignore_index=True) if rows else empty


def _scores(model: GLMTransformerModel, data: FitData, session: str) -> dict[str, pd.DataFrame]:
    """The table of that name; none without test windows."""
    samples = data.samples(session, "test")
    if not len(samples):
        return {}
    return {"scores": pd.DataFrame([share_row(coupling_share(model, data, session, samples), len(samples))])}


def coupling_share(model: GLMTransformerModel, data: FitData, session: str, samples: pd.DataFrame) -> float:
    """`variance_share` of coupling between populations in the log-rates of some windows."""
    network = model.network
    head, areas = network.head(session), len(network.areas)
    between = (1 - torch.eye(areas, device=head.send.device)).repeat_interleave(model.config.rank).view(areas, -1)

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for batch in model.batches(data, session, samples):
            with torch.inference_mode():
                parts = network.components(batch)
                series = network.coupling_factors(session, network.inputs(batch), batch.history)
                cross = ((series * between.flatten()) @ head.receiving()).cpu().numpy()
                whole = (parts["background"] + parts["coupling"]).double().cpu().numpy()
            yield whole, whole - cross, batch.observed[:, batch.history :].cpu().numpy()

    return variance_share(pieces())


def _weights(
    model: GLMTransformerModel, data: FitData, session: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights [N, A, K] and their standard errors, from the training windows."""
    head = model.network.head(session)
    receive, send = weight_errors(model.network, model.batches(data, session, "train"))
    weights = {"send": head.send.detach().cpu().numpy(), "receive": head.receive.detach().cpu().numpy()}
    return weights, {"send": send, "receive": receive}


def _area_table(model: GLMTransformerModel, data: FitData, session: str) -> pd.DataFrame:
    network = model.network
    areas = network.areas
    found, z = None, np.full((len(areas), len(areas)), np.nan)
    if len(data.samples(session, "test")):
        found = evidence(network, model.batches(data, session, "test"))
        z = timing_test(network, model.batches(data, session, "test"))
    filters, rows = area_filters(network, session), []
    for sender, receiver in network.head(session).coupled.nonzero().tolist():
        gain = p = float("nan")
        if found is not None:
            gains = found.spike_gains(sender, receiver)
            p, gain = permutation_test(gains, found.condition, model.config.permutations, model.seed)
        for factor, values in enumerate(filters[sender, receiver]):
            peak = int(np.abs(values).argmax())
            of_filter = float(values.sum()), float(values[peak]), (peak + 1) * model.layout.bin_size
            tests = gain, p, z[sender, receiver], stats.norm.sf(z[sender, receiver])
            rows.append([areas[sender], areas[receiver], factor, *of_filter, *tests])
    table = pd.DataFrame(rows, columns=AREA_COLUMNS)
    first = table["factor"] == 0
    pairs = table[first].assign(q=false_discovery_rate(table.loc[first, "p_timing"].to_numpy(np.float64)))
    return table.merge(pairs[["sender", "receiver", "q"]], on=["sender", "receiver"])


def _unit_table(
    model: GLMTransformerModel,
    data: FitData,
    session: str,
    weights: dict[str, np.ndarray],
    errors: dict[str, np.ndarray],
) -> pd.DataFrame:
    head, couplings = model.network.head(session), model.couplings(session)
    assert couplings is not None
    area = head.area.cpu().numpy()
    p = {kind: 2 * stats.norm.sf(np.abs(weights[kind] / errors[kind])) for kind in weights}
    # Row = sender: what it sends to the receiver's population, and what the receiver takes from the sender's.
    # NaN where the data say nothing of one of them; of several factors, those that they say something of count.
    both = np.maximum(p["send"][:, area], p["receive"][:, area].swapaxes(0, 1))
    pair_p = np.minimum(np.fmin.reduce(both, axis=2) * model.config.rank, 1.0)
    allowed = head.coupled.cpu().numpy()[np.ix_(area, area)] > 0
    filters = np.where(allowed[:, :, None], couplings.filters, np.nan)
    pair_p = np.where(np.isfinite(filters).all(2) & ~np.eye(len(area), dtype=bool), pair_p, np.nan)
    return coupling_table(filters, couplings.bin_size, data.trains[session].units, pair_p)
