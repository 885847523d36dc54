"""On a GPU: CUDA graphs, compilation and ensembles train as plain steps do."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.training.batches import InOrder
from pipeline_lib.training.ensemble import Ensemble
from pipeline_lib.training.graphs import Recording
from pipeline_lib.training.optimiser import AdamW
from pipeline_lib.training.run import Run
from pipeline_lib.training.streaming import shuffled
from tests.small_cohort import open_cohort, recording, write_cohort
from tests.training.test_engine import FragileRun, Killed, same
from tests.training.tiny_network import Config as TinyConfig
from tests.training.tiny_network import TinyModel

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
SMALL = Config(layers=2, hidden=32, steps=20, warmup=2, evaluate_every=5, batch=8, learning_rate=2e-3)
SEEDS = [0, 3, 7]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    """Two sessions, whose batches have two sizes each."""
    made = [recording("one", 0, units=9, trials=30), recording("two", 1, units=12, trials=24)]
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("cohort"), made=made), fitting=True)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("single"), made=[recording(trials=30)]), fitting=True)


def fitted(data: FitData, run: Run, config: Config, seed: int = 0) -> NDT:
    model = NDT(config, seed)
    model.device = "cuda"
    model.fit(data, run)
    return model


def together(data: FitData, run: Run, config: Config, seeds: list[int] = SEEDS) -> Ensemble:
    models = [NDT(config, seed) for seed in seeds]
    for model in models:
        model.device = "cuda"
    windows, validation = (models[0].windows(data, part, run) for part in ("train", "validation"))
    for model in models:
        model.start(data, windows)
    batches = [shuffled(windows, config.batch, seed) for seed in seeds]
    made = Ensemble([model.network for model in models], batches, InOrder(validation, 64), config, seeds, run)
    made.train()
    return made


def assert_same_history(rows: list[dict], expected: list[dict], tolerance: float) -> None:
    assert len(rows) == len(expected) > 0
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=tolerance)


@pytest.mark.parametrize(
    "settings", [{}, {"schedule": "plateau", "average": 0.0, "clip": 0.1}, {"precision": "bfloat16"}], ids=str
)
def test_a_graph_gives_the_steps_of_plain_launches(data: FitData, tmp_path: Path, settings: dict) -> None:
    """Noise and learning rates of every step included; batches are of four shapes."""
    plain, recorded = Run(tmp_path / "plain", device="cuda"), Run(tmp_path / "recorded", device="cuda")
    fitted(data, plain, replace(SMALL, **settings))
    fitted(data, recorded, replace(SMALL, cuda_graphs=True, **settings))
    assert_same_history(recorded.rows, plain.rows, 1e-3 if settings.get("precision") else 1e-4)
    assert len({row["loss"] for row in plain.rows}) == 4


def test_a_killed_fit_with_graphs_ends_in_the_same_bytes(data: FitData, tmp_path: Path) -> None:
    config = replace(SMALL, cuda_graphs=True)
    undisturbed = fitted(data, Run(tmp_path / "undisturbed", device="cuda"), config)
    for _ in range(10):
        try:
            model = fitted(data, FragileRun(tmp_path / "killed", 7, device="cuda"), config)
            break
        except Killed:
            continue
    assert same(model.state(), undisturbed.state())


def test_a_network_that_decides_on_values_is_refused(data: FitData, tmp_path: Path) -> None:
    model = TinyModel(TinyConfig(cuda_graphs=True), 0)
    model.device = "cuda"
    with pytest.raises(InputError, match="cuda_graphs: found True; accepted: false"):
        model.fit(data, Run(tmp_path, device="cuda"))


@pytest.mark.parametrize("graphs", [False, True], ids=["launched", "recorded"])
def test_members_of_an_ensemble_train_as_alone(data: FitData, tmp_path: Path, graphs: bool) -> None:
    made = together(data, Run(tmp_path / "together", device="cuda"), replace(SMALL, cuda_graphs=graphs))
    for number, seed in enumerate(SEEDS):
        run = Run(tmp_path / str(seed), device="cuda")
        alone = fitted(data, run, SMALL, seed)
        rows = [{name: value for name, value in row.items() if name != "seed"} for row in made.run.rows]
        assert_same_history(rows[number :: len(SEEDS)], run.rows, 1e-4)
        batch = alone.windows(data, "validation", run)["two"].batch(slice(None))
        with torch.inference_mode():
            rates = [network.eval().rates(batch) for network in (made.networks[number], alone.network)]
        torch.testing.assert_close(*rates, rtol=1e-3, atol=1e-4)


def test_an_early_end_of_a_member_is_recorded_anew(data: FitData, tmp_path: Path) -> None:
    config = replace(SMALL, steps=40, patience=2, learning_rate=0.01, schedule="constant", average=0.0)
    seeds = list(range(8))
    runs = []
    for graphs in (False, True):
        runs.append(Run(tmp_path / str(graphs), device="cuda"))
        together(data, runs[-1], replace(config, cuda_graphs=graphs), seeds)
    lengths = {sum(row["seed"] == seed for row in runs[0].rows) for seed in seeds}
    assert len(lengths) > 1, "every member ended at once"
    assert_same_history(runs[1].rows, runs[0].rows, 1e-3)


@pytest.mark.parametrize(
    ("cohort", "settings", "tolerance"),
    [("data", {}, 1e-4), ("single", {}, 1e-4), ("single", {"precision": "bfloat16"}, 2e-3)],
    ids=["cohort", "a session", "a session, bfloat16"],
)
def test_a_compiled_network_is_the_same(
    request: pytest.FixtureRequest, tmp_path: Path, cohort: str, settings: dict, tolerance: float
) -> None:
    """Without dropout: compiled code draws other numbers. Of a single session the masks and all of the loss are."""
    data: FitData = request.getfixturevalue(cohort)
    noiseless = replace(SMALL, dropout=0.0, dropout_embedding=0.0, dropout_rates=0.0, **settings)
    runs = []
    for changes in ({}, {"compile": True}, {"compile": True, "cuda_graphs": True}):
        runs.append(Run(tmp_path / str(len(runs)), device="cuda"))
        fitted(data, runs[-1], replace(noiseless, **changes))
    for run in runs[1:]:
        assert_same_history(run.rows, runs[0].rows, tolerance)


def test_a_recorded_update_divides_gradients_by_what_it_is_told() -> None:
    """And follows the learning rate; epsilon is large, so that the size of gradients matters."""
    weights, exact = ({name: torch.linspace(1, 2, 10 + size) for size, name in enumerate("abc")} for _ in range(2))
    weights = {name: weight.cuda() for name, weight in weights.items()}
    gradients = {name: weight.sin().cuda() for name, weight in exact.items()}
    recorded, plain = (AdamW(each, epsilon=0.5, weight_decay=0.1) for each in (weights, exact))

    def update(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        for name, weight in weights.items():
            weight.grad = gradients[name].clone()  # the kernel divides them where they lie
        recorded.step(tensors["rate"], shrink=tensors["shrink"])
        return tensors["rate"]

    recording = None
    for rate, shrink in ((0.1, 4.0), (0.2, 1.0), (0.05, 30.0)):
        inputs = {"rate": torch.tensor(rate).cuda(), "shrink": torch.tensor(shrink).cuda()}
        recording = recording or Recording(update, inputs, [*weights.values(), *recorded.state.values()])
        recording.run(inputs)
        for name, weight in exact.items():
            weight.grad = gradients[name].cpu() / shrink
        plain.step(rate)
        for name, weight in exact.items():
            torch.testing.assert_close(weights[name].cpu(), weight, rtol=1e-5, atol=1e-6)
