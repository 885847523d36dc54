"""Bits per spike of the likelihood of tokens, exact, against homogeneous Poisson units.

The tokens of a window and its counts are the same thing, so the log-likelihood of one is that of the other, and may be
compared with any model of counts in the same bins (GLM, LFADS, NDT): here log y! belongs to both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline_lib.evaluation.bootstrap import resampling_weights
from pipeline_lib.evaluation.rows import score_row

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.models.neuroformer.network import Neuroformer
    from pipeline_lib.models.neuroformer.windows import Windows
    from pipeline_lib.training.batches import Batch

RESAMPLES = 1000


def window_sums(network: Neuroformer, batches: list[Batch]) -> dict[str, np.ndarray]:
    """Of every sample: `loglik`, nats [S]; `spikes` and `bins` of each held-in unit [S, N]; `log_factorials` [S]; and,
    of all samples together, `longest`, `longest_past` and `cut`, tokens."""
    found: dict[str, list[np.ndarray]] = {}
    longest, past, cut = 0, 0, 0
    for batch in batches:
        head, windows = network.head(batch.session), network.windows(batch)
        bins, units = network.token_log_likelihood(head, windows, network.read(batch, windows))
        of_windows = {
            "loglik": bins.double() + units.double(),
            "spikes": windows.counts.sum(1, dtype=torch.int64),
            "bins": observed_bins(windows),
            "log_factorials": torch.lgamma(windows.counts.double() + 1).sum((1, 2)),
        }
        for name, values in of_windows.items():
            of_samples = values.cpu().unflatten(0, (len(batch.counts), -1)).sum(1)
            found.setdefault(name, []).append(of_samples.double().numpy())
        longest, past = max(longest, int(windows.now.count.max())), max(past, int(windows.past.count.max()))
        cut += windows.now.cut + windows.past.cut
    sums = {name: np.concatenate(values) for name, values in found.items()}
    return sums | {"longest": np.array(longest), "longest_past": np.array(past), "cut": np.array(cut)}


def observed_bins(windows: Windows) -> Tensor:
    """Observed bins of every unit in every window [M, N]."""
    units = windows.counts.shape[2]
    width = windows.cut.width[:, None].expand(-1, units)
    return width if windows.seen is None else width * windows.seen


def score_rows(sums: dict[str, np.ndarray], train_mean: np.ndarray) -> list[dict[str, Any]]:
    """Rows of the score table: bits per spike of the tokens, against the mean rates of the data and of the training.

    Parameters
    ----------
    sums : of `window_sums`.
    train_mean : spikes a bin of each held-in unit in training [N].
    """
    windows = len(sums["loglik"])
    weights = resampling_weights(windows, RESAMPLES, seed=0)
    own = sums["spikes"].sum(0) / np.maximum(sums["bins"].sum(0), 1)
    rows = []
    for null, mean in (("evaluated mean", own), ("train mean", train_mean)):
        rate = np.maximum(mean, 1e-9)
        poisson = sums["spikes"] @ np.log(rate) - sums["bins"] @ rate - sums["log_factorials"]
        spikes = weights @ sums["spikes"].sum(1)
        gain = weights @ (sums["loglik"] - poisson)
        bits = np.divide(gain, spikes * np.log(2), out=np.full(len(spikes), np.nan), where=spikes > 0)
        rows.append({"units": "heldin", **score_row("token_bits_per_spike", bits, windows, null, windows=windows)})
    return rows
