"""What predictions.zarr holds: every window in its row, nothing past its end, and nothing that cannot be."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.training import predictions as module
from pipeline_lib.training.fit import fit, load_fit
from pipeline_lib.training.predictions import write_predictions
from pipeline_lib.training.run import FitError, Interrupted, Run
from tests.small_cohort import SPLITS, WINDOWS, Cohort, open_cohort, recording, write_cohort


@dataclass(frozen=True)
class Config:
    pass


class Numbered(Model):
    """The rate of a bin is the number of its window and its own; past the end it is whatever it is."""

    Config, sees = Config, "nothing"
    beyond = np.nan

    def predict(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        bins = np.arange(samples["bins"].max())
        rates = samples.index.to_numpy()[:, None] + bins / 64
        rates[bins >= samples["bins"].to_numpy()[:, None]] = self.beyond
        return np.repeat(rates[:, :, None], data.trains[session].n_units, axis=2)

    def latents(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        return -np.nan_to_num(self.predict(data, session, samples)[:, :, :2])

    def extras(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        return {"numbers": samples.index.to_numpy()}

    def fit(self, data: FitData, run: Run) -> None:
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        raise NotImplementedError


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    made = recording(units=5, trials=40)
    made.trials["stop"] -= np.linspace(0, 0.5, 40)
    return write_cohort(tmp_path_factory.mktemp("ragged"), replace(WINDOWS, after=None), SPLITS, [made])


@pytest.mark.parametrize("beyond", [np.nan, -1.0, 5.0])
@pytest.mark.parametrize("at_once", [3, 1000])
def test_every_window_is_in_its_row_up_to_its_end(
    ragged: Cohort, tmp_path: Path, at_once: int, beyond: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are predicted at once, and whatever a model makes of bins past the end."""
    monkeypatch.setattr(module, "CHUNK", at_once)
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    data, model = open_cohort(*ragged), Numbered(Config(), 0)
    model.beyond = beyond
    write_predictions(tmp_path / "made.zarr", model, data, {}, Run(tmp_path))
    made = zarr.open_group(tmp_path / "made.zarr", mode="r")["small0"]
    ids = made["sample"][:]
    samples = data.split.samples.loc[ids]
    assert len(ids) == (data.split.samples["split"] != "train").sum() > 6
    bins = np.arange(samples["bins"].max())
    past = bins >= samples["bins"].to_numpy()[:, None]
    expected = np.where(past, np.nan, ids[:, None] + bins / 64).astype(np.float32)
    assert past.any() and made["rates"].dtype == made["latents"].dtype == np.float32
    np.testing.assert_array_equal(made["rates"][:], np.repeat(expected[:, :, None], 5, axis=2))
    np.testing.assert_array_equal(made["latents"][:], -np.repeat(expected[:, :, None], 2, axis=2))
    np.testing.assert_array_equal(made["extras/numbers"][:], ids)


@pytest.mark.parametrize(
    ("method", "spoilt", "message"),
    [
        ("latents", lambda values: np.where(np.arange(len(values))[:, None, None] == 1, np.nan, values), "not finite"),
        ("extras", lambda values: {"numbers": values["numbers"][1:]}, "numbers of 15 windows, expected 16"),
    ],
)
def test_latents_and_extras_that_cannot_be_are_not_published(
    ragged: Cohort, tmp_path: Path, method: str, spoilt: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(Numbered, method)
    monkeypatch.setattr(Numbered, method, lambda *arguments: spoilt(whole(*arguments)))
    with pytest.raises(FitError, match=f"model Numbered, session small0: .*{message}"):
        write_predictions(tmp_path / "made.zarr", Numbered(Config(), 0), open_cohort(*ragged), {}, Run(tmp_path))


def test_asked_to_end_it_predicts_no_further(ragged: Cohort, tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.stopping(), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        write_predictions(tmp_path / "made.zarr", Numbered(Config(), 0), open_cohort(*ragged), {}, run)


ROUNDS = """
from dataclasses import dataclass
import numpy as np
from pipeline_lib.models.contract import Model

@dataclass(frozen=True)
class Config:
    pass

class Rounds(Model):
    Config, sees = Config, "nothing"
    def fit(self, data, run): self.rate = 2.7
    def predict(self, data, session, samples):
        return np.full((len(samples), samples["bins"].max(), data.trains[session].n_units), self.rate)
    def state(self): return {"rate": np.array(round(self.rate))}
    def load_state(self, state): self.rate = float(state["rate"])

MODEL = Rounds
"""


def test_what_is_published_was_predicted_with_the_weights_that_are(ragged: Cohort, tmp_path: Path) -> None:
    """They are all that others will have, also where a model keeps less than it had in memory."""
    model = tmp_path / "rounds.py"
    model.write_text(ROUNDS)
    fit(*ragged, "rounds", str(model), {}, 0, tmp_path / "fit")
    rates = zarr.open_group(tmp_path / "fit/predictions.zarr", mode="r")["small0/rates"][:]
    assert np.nanmax(rates) == np.nanmin(rates) == load_fit(tmp_path / "fit", str(model)).rate == 3.0
    weights = tmp_path / "fit/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(InputError, match="bytes that do not agree"):
        load_fit(tmp_path / "fit", str(model))
