"""The benchmark's Lorenz set: minutes of training, so not among the quick tests."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.lfads import lorenz_set, scores
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.models.lfads.settings import Config
from pipeline_lib.training.run import Run


@pytest.mark.slow
def test_the_rates_of_the_lorenz_set_are_recovered(tmp_path: Path) -> None:
    """R2 of .93 and 97 % of the information of the true rates, within 150 CPU-seconds on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data, truth = lorenz_set(tmp_path)
    samples = data.samples("lorenz", "validation")
    _, oracle = scores(truth[samples["trial"].to_numpy()], data, truth)
    model = LFADS(Config(steps=1200, evaluate_every=150), 0)
    start = time.process_time()
    model.fit(replace(data, fitting=True), Run(tmp_path / "run"))
    spent = time.process_time() - start
    torch.set_num_threads(threads)
    r2, bits = scores(model.predict(data, "lorenz", samples), data, truth)
    assert r2 >= 0.93 and bits >= 0.402 / 0.4133 * oracle
    assert spent < 300, "twice the target: a shared machine is slower"
