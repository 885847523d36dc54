"""On a GPU the network computes what it computes on a CPU, and a fit ends there with all its tables."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.neuroformer.connectivity import probed_couplings
from pipeline_lib.models.neuroformer.generation import generate
from pipeline_lib.models.neuroformer.model import NeuroformerModel
from pipeline_lib.models.neuroformer.sampling import Sampling
from pipeline_lib.training.run import Run
from tests.models.neuroformer.small import batch, network, poisson, with_settings
from tests.models.neuroformer.test_modalities import TASKS, film

__all__ = ["film"]
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("compat", [False, True])
def test_losses_spikes_and_couplings_are_those_of_a_cpu(compat: bool) -> None:
    made = network(units=8, heldout=2, config=with_settings(compat=compat))
    given = batch(poisson(5, 35, units=8), heldout=2)
    moved = given.holding({name: array.cuda() for name, array in given.tensors().items()})
    greedy = Sampling(temperature=0, most=40)

    def found(on: object) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        with torch.no_grad():
            losses = {name: float(value) for name, value in made(on).items()}  # type: ignore[operator]
        written = generate(made, on, greedy, 0).cpu().numpy()  # type: ignore[arg-type]
        return losses, written, probed_couplings(made, "one", 2)

    losses, written, couplings = found(given)
    made.cuda()
    again, rewritten, recoupled = found(moved)
    assert again == pytest.approx(losses, rel=1e-4)
    assert np.array_equal(written, rewritten) and np.allclose(couplings, recoupled, atol=1e-4, equal_nan=True)


def test_a_fit_on_a_gpu_has_all_tables(film: FitData, tmp_path: Path) -> None:
    model = NeuroformerModel(replace(TASKS, probes=2, rollouts=1), 0)
    model.device = "cuda"
    model.fit(replace(film, fitting=True), Run(tmp_path, device="cuda"))
    tables = model.tables(film)
    assert {"scores", "decoding", "generated", "statistics", "attention"} <= set(tables)
    assert tables["scores"]["value"].notna().all()
    samples = film.samples("film", "test")
    assert np.isfinite(model.predict(film, "film", samples)).all() and model.couplings("film") is not None
    assert np.isfinite(model.extras(film, "film", samples)["feature_spikes"]).all()
