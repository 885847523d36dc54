"""How well each unit's test spikes are predicted, and how well without one of the parts of its log-rate."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_lib.evaluation.metrics import unit_bits_per_spike
from pipeline_lib.evaluation.sums import PoissonSums, poisson_sums
from pipeline_lib.models.torch_model import PREDICTED

if TYPE_CHECKING:
    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.glm_transformer.model import GLMTransformerModel


def unit_scores(model: GLMTransformerModel, data: FitData, session: str) -> pd.DataFrame:
    """A row a held-in unit: unit_id, region, population, spikes, `bits_per_spike`, `without_{part}`.

    Bits per spike in the test windows, above a constant rate, the one that the unit turned out to have there; NaN for
    a unit that was silent. `without_coupling` and `without_history` are of the same fit with that part switched off and
    nothing fitted anew: what a unit loses depends on what the part contributed there.
    """
    samples, heldin = data.samples(session, "test"), data.heldin(session)
    sums: dict[str, list[PoissonSums]] = {}
    for start in range(0, len(samples), PREDICTED):
        some = samples.iloc[start : start + PREDICTED]
        parts = model.components(data, session, some)
        counts, mask = (each[..., heldin] for each in data.targets(session, some))
        whole = np.sum(list(parts.values()), axis=0)
        for name in ("", *(part for part in parts if part != "background")):
            rates = np.exp(whole - parts[name] if name else whole)[:, :, heldin]
            sums.setdefault(name, []).append(poisson_sums(counts, rates, mask).total())
    units = data.trains[session].units.iloc[heldin]
    table = units[["unit_id", "region", "population"]].reset_index(drop=True)
    if not sums:
        return table.assign(spikes=0, bits_per_spike=np.nan)
    total = {name: reduce(add, pieces) for name, pieces in sums.items()}
    columns = {f"without_{name}" if name else "bits_per_spike": each for name, each in total.items()}
    scores = {name: unit_bits_per_spike(each)[0] for name, each in columns.items()}
    return table.assign(spikes=total[""].spikes[0].astype(np.int64), **scores)
