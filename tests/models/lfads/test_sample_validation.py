"""Counts that are kept for sample validation stay kept, whichever windows are read together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.lfads.concealment import HIDDEN
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.training.run import Run
from tests.models.lfads.small import CONTROLLED
from tests.training.test_engine import same

CONFIG = replace(CONTROLLED, sample_validation=0.3)


def test_what_is_kept_of_a_window_does_not_depend_on_those_beside_it(ragged: FitData) -> None:
    """A batch that is made when it is needed holds other windows in every epoch: what was kept would be learned."""
    data, model = replace(ragged, fitting=True), LFADS(CONFIG, 0)
    samples = data.samples("one", "train")
    together = model.inputs(data, "one", samples)[HIDDEN]
    assert 0.25 < together[:, :, data.heldin("one")].mean() < 0.35 and samples["bins"].nunique() > 3
    for row in range(len(samples)):
        alone = model.inputs(data, "one", samples.iloc[[row]])[HIDDEN][0]
        np.testing.assert_array_equal(alone, together[row, : len(alone)])


def test_what_is_kept_is_kept_from_every_seed(ragged: FitData) -> None:
    """A member of a population goes on from weights of another seed, which would have learned it."""
    data = replace(ragged, fitting=True)
    one, other = (LFADS(CONFIG, seed).inputs(data, "one", data.samples("one", "train"))[HIDDEN] for seed in (0, 1))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("conditions", ["shared", "own"])
def test_what_is_kept_has_no_say_in_where_a_fit_starts(ragged: FitData, tmp_path: Path, conditions: str) -> None:
    """Nor in the means that stand for hidden units, nor in read-ins aligned between sessions."""
    samples = ragged.split.samples
    if conditions == "own":
        samples = samples.assign(condition=samples["session"] + samples["condition"].astype(str))
    data = replace(ragged, split=replace(ragged.split, samples=samples), fitting=True)
    started = []
    for changed in (None, True, False):
        model = LFADS(CONFIG, 0)
        windows = model.windows(data, "train", Run(tmp_path))
        for each in windows.values():
            each.counts += 3 * (each.inputs[HIDDEN] == changed) * each.observed
        model.start(data, windows)
        started.append(model.network.state_dict())
    given, kept, learned = started
    assert all(torch.equal(kept[name], weight) for name, weight in given.items())
    for name in ("mean", "read_out.bias", "read_in.weight", "read_out.weight"):
        assert not torch.equal(learned[f"sessions.one.{name}"], given[f"sessions.one.{name}"])


@pytest.mark.parametrize("signals", [(), ("running.speed",)])
def test_a_fit_that_is_streamed_is_that_of_resident_windows(
    ragged: FitData, tmp_path: Path, signals: tuple[str, ...]
) -> None:
    data, states = replace(ragged, fitting=True), []
    for budget in (2**30, 0):
        model = LFADS(replace(CONFIG, signals=signals), 0)
        run = Run(tmp_path / str(budget), memory_budget=budget)
        model.fit(data, run)
        states.append((model.state(), run.history_csv()))
    assert states[0][1] == states[1][1]
    assert same(states[0][0], states[1][0])
