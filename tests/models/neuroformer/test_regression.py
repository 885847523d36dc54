"""What read-outs start from: counts in steps, ridge regression, and the curve that bends it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.neuroformer.model import NeuroformerModel
from pipeline_lib.models.neuroformer.network import Neuroformer
from pipeline_lib.models.neuroformer.regression import PENALTIES, Piece, Regression, Steps, moments, path, ridge
from pipeline_lib.models.neuroformer.session import ReadOut
from pipeline_lib.models.neuroformer.settings import Config
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.training.batches import Windows
from pipeline_lib.training.run import Run
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains
from tests.models.neuroformer.small import batch, network, poisson

SPEED = "decode:running/speed"
TASK = Config(
    window=0.1, past=0.2, width=8, heads=2, steps=1, warmup=1, evaluate_every=1, batch=4, probes=0, loss_terms=(SPEED,),
    decode={"running/speed": "regression", "state/moving": "classification"},
)  # fmt: skip


@pytest.fixture(scope="module")
def film() -> FitData:
    trains = Trains.from_recording(simulate("video", {"units": 12, "duration": 120.0, "targets": 4}, 0, "film"))
    windows = WindowSettings(bin_size=10, mode="continuous", length=0.5, history=0.2)
    split = make_split([trains], windows, SplitSettings(block=6.0, fractions=(0.6, 0.2, 0.2)), "film")
    return FitData({"film": trains}, split)


def started(data: FitData, config: Config, folder: Path) -> NeuroformerModel:
    """A model at the start of its training."""
    model = NeuroformerModel(config, 0)
    model._check_data(data)
    windows = model.windows(replace(data, fitting=True), "train", Run(folder))
    model.start(data, windows)
    return model


def read_out(network: Neuroformer, name: str = "running/speed") -> ReadOut:
    found = network.head("film").decode[name]
    assert isinstance(found, ReadOut)
    return found


@pytest.mark.parametrize("length", [5, 4, 20])
def test_steps_count_every_spike_once(length: int) -> None:
    counts = poisson(samples=3, length=25, rate=0.6)
    made = network()  # windows of 5 bins after 10 of past
    found = Steps(6, 15, length).roots(made.windows(batch(counts))).square()
    for row, (sample, start) in enumerate((sample, start) for sample in range(3) for start in (10, 15, 20)):
        spikes = counts[sample, start - 10 : start + 5][::-1]
        expected = [spikes[first : first + length].sum(0) for first in range(0, 15, length)][::-1]
        assert torch.allclose(found[row], torch.tensor(np.concatenate(expected), dtype=torch.float32), atol=1e-5)
    assert (
        Steps.of(10, 50, 10).number == 5 and Steps.of(1000, 50, 10).number == 2 and Steps.of(9999, 50, 10).number == 1
    )


def test_the_penalty_is_the_one_that_predicts_best() -> None:
    """Against ridge regression written out, with features of very different size; noise asks for a larger penalty."""
    rng = np.random.default_rng(0)
    chosen = []
    for noise in (0.1, 20.0):
        x = rng.standard_normal((400, 6)) * [1, 5, 0.1, 1, 1, 0] + 3
        y = x[:, :2] @ np.array([[1.0, 0.0], [-0.3, 2.0]]) + noise * rng.standard_normal((400, 2))
        y[7] = np.nan
        sample, keep = np.arange(400) // 2, np.arange(400) != 7
        piece = (torch.tensor(x), torch.tensor(y), torch.tensor(sample))
        weights, bias = ridge(
            moments([tuple(part[:100] for part in piece), tuple(part[100:] for part in piece)], 150), 6
        )

        def reference(rows: np.ndarray, penalty: float, x: np.ndarray = x, y: np.ndarray = y) -> tuple:
            mean, spread, level = x[rows].mean(0), x[rows].std(0), y[rows].mean(0)
            z = (x[rows] - mean)[:, :5] / spread[:5]
            inner = np.linalg.solve(z.T @ z / len(z) + penalty * np.eye(5), z.T @ (y[rows] - level) / len(z))
            whole = np.vstack([inner / spread[:5, None], np.zeros((1, 2))])
            return whole, level - mean @ whole

        errors = []
        for penalty in PENALTIES:
            early, level = reference(np.flatnonzero((sample < 150) & keep), penalty)
            errors.append(((y - x @ early - level)[sample >= 150] ** 2).mean())
        chosen.append(int(np.argmin(errors)))
        expected = reference(np.flatnonzero(keep), PENALTIES[chosen[-1]])
        assert np.allclose(weights, expected[0], atol=1e-5) and np.allclose(bias, expected[1], atol=1e-4)
    assert chosen[1] > chosen[0]


def test_nothing_to_choose_by_is_no_regression() -> None:
    piece = (torch.ones(5, 3), torch.ones(5, 1), torch.arange(5))
    assert all(not bool(each.any()) for each in ridge(moments([piece], 9), 3))
    assert len(path(moments([piece], 3)[0], 3)) == len(PENALTIES)


def test_the_curve_bends_what_a_line_cannot() -> None:
    """Speed cannot fall below 0: a line through the same counts must miss it."""
    rng = np.random.default_rng(0)
    roots = torch.tensor(rng.standard_normal((3000, 4)), dtype=torch.float32)
    target = (roots @ torch.tensor([1.0, -1.0, 0.5, 0.0])).clamp(min=0)[:, None]
    made = Regression(4, 1)
    made.fit(lambda: iter([(roots, target, torch.arange(3000))]), 2400)
    line, bent = ((found - target).square().mean() / target.var() for found in (made.line(roots), made(roots)))
    assert line > 0.15 and bent < 0.01


def test_the_curve_bends_where_windows_with_a_target_are() -> None:
    """Windows past the end of a trial, or while nothing was measured, do not say where."""
    roots, target = torch.linspace(0, 1, 200)[:, None], torch.linspace(0, 3, 200)[:, None]
    known, more = Regression(1, 1), Regression(1, 1)
    known.fit(lambda: iter([(roots, target, torch.arange(200))]), 150)
    empty = (torch.full((900, 1), 5.0), torch.full((900, 1), torch.nan), torch.full((900,), 3))
    more.fit(lambda: iter([(roots, target, torch.arange(200)), empty]), 150)
    middle = np.quantile(known.line(roots).numpy(), np.linspace(0.05, 0.95, len(known.knots)))
    assert np.allclose(known.knots[:, 0], middle, atol=1e-6)
    assert torch.equal(known.knots, more.knots) and torch.equal(known.bend, more.bend) and known.bend.any()
    nothing = Regression(1, 1)
    nothing.fit(lambda: iter([empty]), 150)
    assert not any(each.any() for each in nothing.buffers())


def test_read_outs_start_from_the_regression_of_the_training_alone(film: FitData, tmp_path: Path) -> None:
    """Before a step of training: speed is decoded, whether the animal moves, too; untrained terms stay as they were."""
    model = started(film, replace(TASK, loss_terms=None), tmp_path / "both")
    tables = model.tables(film)["scores"].query("split == 'test'").set_index("metric")["value"]
    assert tables["decoding_r2 running/speed"] > 0.5 and tables["decoding_balanced_accuracy state/moving"] > 0.7
    one = started(film, TASK, tmp_path / "one")
    assert torch.equal(read_out(one.network).regression.weight, read_out(model.network).regression.weight)
    assert not read_out(one.network, "state/moving").regression.bend.any()
    plain = started(film, replace(TASK, decode_linear=False), tmp_path / "plain")
    assert read_out(plain.network).regression is None
    without = plain.tables(film)["scores"].query("split == 'test'").set_index("metric")["value"]
    assert abs(without["decoding_r2 running/speed"]) < 0.1


def test_the_last_fifth_of_the_samples_chooses_the_penalty(
    film: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All windows of a sample on one side, however many samples are read at a time."""
    seen: list[tuple[torch.Tensor, float]] = []

    def fit(self: Regression, pieces: Callable[[], Iterator[Piece]], early: float) -> None:
        seen.append((torch.cat([sample for _, _, sample in pieces()]), early))

    whole = Windows.pieces
    monkeypatch.setattr(Windows, "pieces", lambda self, size=7: whole(self, size))
    monkeypatch.setattr(Regression, "fit", fit)
    turned = dict(reversed(TASK.decode.items()))
    models = [started(film, replace(TASK, decode=each), tmp_path / str(len(seen))) for each in (TASK.decode, turned)]
    scales = [read_out(each.network).scale for each in models]
    assert torch.equal(*scales) and scales[0][0] > 1
    (sample, early), samples = seen[0], len(film.samples("film", "train"))
    assert samples % 7 and sample.tolist() == np.repeat(np.arange(samples), 5).tolist()
    assert early == pytest.approx(0.8 * samples)


def test_a_share_of_the_windows_is_all_that_is_regressed(film: FitData, tmp_path: Path) -> None:
    """Also where weights come from a fit that knew the speed of all windows."""
    from pipeline_lib.training.run import write_arrays

    whole = started(film, TASK, tmp_path / "whole")
    write_arrays(tmp_path / "whole.safetensors", whole.state())
    share = replace(TASK, fraction=0.3, initial=str(tmp_path / "whole.safetensors"))
    model = NeuroformerModel(share, 0)
    model.fit(replace(film, fitting=True), Run(tmp_path / "share"))
    few = model._share(film)
    alone = started(few, replace(TASK, initial=None), tmp_path / "alone")
    found, expected, before = (read_out(each.network) for each in (model, alone, whole))
    assert torch.equal(found.scale, expected.scale) and torch.equal(found.regression.bend, expected.regression.bend)
    assert not torch.equal(found.regression.weight, before.regression.weight)
