"""What no deep model may see: checks that the tests of each one call."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.training.batches import Windows
from pipeline_lib.training.network import Network
from pipeline_lib.training.run import Run
from tests.small_cohort import open_cohort, recording, write_cohort

HIDDEN = ("held-out unit", "forward bin", "past the end")


def check_other_windows(model: Model, data: FitData, session: str) -> None:
    """A window's prediction is the same alone, in another order and in a batch with others; again, the same bytes."""
    samples = data.samples(session, "test")
    rates = model.predict(data, session, samples)
    order = np.random.default_rng(0).permutation(len(samples))
    permuted = model.predict(data, session, samples.iloc[order])
    for row, (sample, bins) in enumerate(zip(samples.index, samples["bins"], strict=True)):
        alone = model.predict(data, session, samples.loc[[sample]])[0]
        assert np.allclose(alone, rates[row, :bins], rtol=0, atol=1e-6)
        assert np.allclose(permuted[order == row][0, :bins], rates[row, :bins], rtol=0, atol=1e-6)
    assert np.array_equal(model.predict(data, session, samples), rates)


def check_hidden_counts(network: Network, windows: Windows, data: FitData, session: str, hidden: str) -> None:
    """Counts that a prediction may not look at (one of `HIDDEN`) change nothing, those that it may do."""
    batch = windows.batch(torch.argsort(windows.bins)[:6].numpy())
    network.eval()
    with torch.inference_mode():
        before = network.rates(batch)
        if hidden == "held-out unit":
            batch.counts[:, :, data.heldout(session)] += 7
        elif hidden == "forward bin":
            for row, bins in enumerate(batch.bins):
                batch.counts[row, bins - data.split.forward_bins : bins] += 7
        else:
            for row, bins in enumerate(batch.bins):
                batch.counts[row, bins:] += 7
        assert torch.equal(network.rates(batch), before)
        batch.counts[:, batch.history, data.heldin(session)] += 7
        assert not torch.allclose(network.rates(batch), before)


def check_heldout_counts_of_other_parts(make: Callable[[], Model], directory: Path) -> None:
    """Scrambled held-out spikes in validation and test windows: the same weights and history."""
    states = []
    for scramble in (False, True):
        made = recording(trials=30)
        data = open_cohort(*write_cohort(directory / str(scramble), made=[made]), fitting=True)
        if scramble:
            trains = data.trains["small0"]
            heldout = np.isin(trains.unit, data.heldout("small0"))
            inside = np.zeros(len(trains.ticks), bool)
            for _, row in data.split.samples.query("split != 'train'").iterrows():
                inside |= (trains.ticks >= row["start_tick"]) & (trains.ticks < row["start_tick"] + row["bins"] * 2000)
            assert (heldout & inside).sum() > 50
            trains.unit[heldout & inside] = data.heldout("small0")[0]
        model, run = make(), Run(directory / f"run{scramble}")
        model.fit(data, run)
        states.append((model.state(), run.history_csv()))
    assert states[0][1] == states[1][1]
    assert all(np.array_equal(states[0][0][name], states[1][0][name]) for name in states[0][0])
