"""Tables of a fit, written out row by row from its weights and the tests of them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.glm.inference import false_discovery_rate
from pipeline_lib.models.glm_transformer.inference import evidence, permutation_test, weight_errors
from pipeline_lib.models.glm_transformer.model import GLMTransformerModel
from pipeline_lib.models.glm_transformer.readout import area_filters
from pipeline_lib.models.glm_transformer.timing import timing_test
from tests import small_cohort
from tests.models.glm_transformer.test_model import SMALL, fitted

AREAS = ["LM", "V1"]
HERE = replace(SMALL, rank=2, coupling="all", permutations=49)
Weights = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    """Units of the two populations in turn."""
    made = small_cohort.recording("small0", units=8)
    made.units["population"] = np.where(np.arange(8) % 2 == 0, "V1", "LM")
    return small_cohort.open_cohort(*small_cohort.write_cohort(tmp_path_factory.mktemp("tables"), made=[made]))


@pytest.fixture(scope="module")
def model(data: FitData, tmp_path_factory: pytest.TempPathFactory) -> GLMTransformerModel:
    """Populations send to each other and V1 to itself, but LM not to itself."""
    made = fitted(data, tmp_path_factory.mktemp("run"), HERE)
    made.network.head("small0").coupled[0, 0] = 0
    made.seed = 3
    return made


@pytest.fixture(scope="module")
def tables(data: FitData, model: GLMTransformerModel) -> dict[str, pd.DataFrame]:
    return model.tables(data)


@pytest.fixture(scope="module")
def errors(data: FitData, model: GLMTransformerModel) -> Weights:
    """Standard errors of what units receive and send in the training windows, and the population of each unit."""
    windows = model._windows(data, "small0", data.samples("small0", "train"))
    receive, send = weight_errors(model.network.eval(), [windows.batch(slice(None))])
    return receive, send, np.array([AREAS.index(name) for name in data.trains["small0"].units["population"]])


def test_loadings_stand_with_their_own_errors(model: GLMTransformerModel, tables: dict, errors: Weights) -> None:
    head, table = model.network.head("small0"), tables["loadings"]
    for kind, weights, own in (("receive", head.receive, errors[0]), ("send", head.send, errors[1])):
        for area, name in enumerate(AREAS):
            for factor in range(2):
                values = weights[:, area, factor].detach().numpy()
                assert np.allclose(table[f"{kind}_{name}_{factor}"], values)
                expected = own[:, area, factor]
                assert np.allclose(table[f"{kind}_{name}_{factor}_se"], expected, rtol=1e-4, equal_nan=True)
    assert np.allclose(table["bias"], head.bias.detach()) and np.allclose(
        table["background_0"], head.readout[:, 0].detach()
    )
    assert table["unit_id"].tolist() == [f"u{unit}" for unit in range(8)]


def test_filters_stand_at_their_lags(model: GLMTransformerModel, tables: dict) -> None:
    """Lag 1 is the next bin, 20 ms later."""
    network = model.network
    head = network.head("small0")
    history = (network.history_basis @ head.history).detach().numpy()
    table = tables["history_filters"]
    for unit in (0, 5):
        own = table[table["unit_id"] == f"u{unit}"]
        assert own["lag"].tolist() == [20.0 * (lag + 1) for lag in range(len(history))]
        assert np.allclose(own["value"], history[:, unit])
    table = tables["area_filters"].set_index(["sender", "receiver", "factor"])
    assert set(table.index) == {(AREAS[i], AREAS[j], k) for i, j in ((0, 1), (1, 0), (1, 1)) for k in range(2)}
    for i, j in ((0, 1), (1, 0)):
        kernel = (network.coupling_basis @ head.shape[i, j]).detach().numpy()
        own = table.loc[(AREAS[i], AREAS[j], 1)]
        assert np.allclose(own["value"], kernel[:, 1], atol=1e-6)
        assert own["lag"].tolist() == [20.0 * (lag + 1) for lag in range(len(kernel))]


def test_pairs_of_populations_by_hand(data: FitData, model: GLMTransformerModel, tables: dict) -> None:
    network, samples = model.network.eval(), data.samples("small0", "test")
    batch = model._windows(data, "small0", samples).batch(slice(None))
    z, filters = timing_test(network, [batch]), area_filters(network, "small0")
    gains, condition = evidence(network, [batch]), samples["condition"].to_numpy(str)
    table = tables["area_couplings"].set_index(["sender", "receiver", "factor"])
    pairs = [(0, 1), (1, 0), (1, 1)]
    q = false_discovery_rate(norm.sf([z[pair] for pair in pairs]))
    assert len(table) == 6 and len(np.unique(condition)) == 3
    for (i, j), pair_q in zip(pairs, q, strict=True):
        p, gain = permutation_test(gains.spike_gains(i, j), condition, 49, model.seed)
        for factor in range(2):
            row, values = table.loc[(AREAS[i], AREAS[j], factor)], filters[i, j, factor]
            assert row["strength"] == pytest.approx(values.sum(), rel=1e-5)
            assert abs(row["peak"]) == pytest.approx(np.abs(values).max())
            assert values[round(row["delay"] / 20) - 1] == pytest.approx(row["peak"])
            assert row["p"] == pytest.approx(p) and row["gain"] == pytest.approx(gain, rel=1e-4)
            assert row["z"] == pytest.approx(z[i, j], rel=1e-4)
            assert row["p_timing"] == pytest.approx(norm.sf(z[i, j]), rel=1e-3)
            assert row["q"] == pytest.approx(pair_q, rel=1e-3)


def test_pairs_of_units_by_hand(data: FitData, model: GLMTransformerModel, tables: dict, errors: Weights) -> None:
    """The larger p of sending and receiving, of the better of two factors, twice for having looked at two."""
    head = model.network.head("small0")
    receive_error, send_error, area = errors
    send, receive = head.send.detach().numpy(), head.receive.detach().numpy()
    expected = {}
    for n in data.heldin("small0"):
        for m in range(8):
            if n == m or (area[n] == area[m] == 0):
                continue
            p = [
                max(
                    2 * norm.sf(abs(send[n, area[m], k] / send_error[n, area[m], k])),
                    2 * norm.sf(abs(receive[m, area[n], k] / receive_error[m, area[n], k])),
                )
                for k in range(2)
            ]
            expected[f"u{n}", f"u{m}"] = min(2 * min(p), 1.0)
    found = tables["couplings"].set_index(["sender", "receiver"])
    assert set(found.index) == set(expected)
    p = pd.Series(expected)
    assert np.allclose(found["p"], p[found.index], rtol=1e-3)
    assert np.allclose(found["q"], false_discovery_rate(p[found.index].to_numpy()), rtol=1e-3)
    assert found["q"].nunique() > 2
