"""The share of coupling between populations against filters applied lag by lag."""

import numpy as np
import pytest

from pipeline_lib.models.glm.share import coupling_share, share_scores, variance_share
from tests.models.glm.sessions import CONFIG, fitted


def test_it_is_the_variance_that_filters_between_populations_make_up(tmp_path, continuous):
    fit_data, data = continuous
    model, _ = fitted(CONFIG, fit_data, tmp_path)
    samples, history = data.samples("net", "test"), data.split.history_bins
    counts, seen = (read("net", samples) for read in (data.counts, data.mask))
    filters = np.nan_to_num(model.couplings("net").filters.astype(np.float64))
    population = data.trains["net"].units["population"].to_numpy()
    between = population[:, None] != population
    cross, own = np.zeros((2, *counts[:, history:].shape))
    for lag in range(filters.shape[2]):
        past = counts[:, history - 1 - lag : counts.shape[1] - 1 - lag].astype(np.float64)
        cross += past @ (filters[:, :, lag] * between)
        own += past * np.diag(filters[:, :, lag])
    whole = np.log(model.predict(data, "net", samples).astype(np.float64)) - own
    heldin = data.heldin("net")
    assert seen[:, history:, heldin].all() and not seen[:, history:, data.heldout("net")].any()
    with_it, without = (each[..., heldin].var(axis=(0, 1)).sum() for each in (whole, whole - cross))
    share = coupling_share(model, data, "net", samples)
    assert share == pytest.approx((with_it - without) / with_it, rel=1e-4)
    assert abs(share) > 0.01

    rows = model.tables(data)["scores"]
    assert rows["value"].tolist() == [share] and rows["metric"].tolist() == ["coupling_share"]
    data.trains["net"].units["population"] = "one"
    assert share_scores(model, data).empty
    data.trains["net"].units["population"] = population


def test_a_variance_is_of_the_bins_in_which_a_unit_was_observed():
    random = np.random.default_rng(0)
    whole, without = random.normal(-3, 1, (2, 7, 20, 4)) * [1, 2, 3, 4]
    seen = random.random(whole.shape) < [1.0, 0.3, 0.8, 0.0]
    seen[:, 0, 1] = True
    found = variance_share([(whole[:3], without[:3], seen[:3]), (whole[3:], without[3:], seen[3:])])
    each = [sum(values[..., unit][seen[..., unit]].var() for unit in range(3)) for values in (whole, without)]
    assert found == pytest.approx(1 - each[1] / each[0])
    assert np.isnan(variance_share([(np.zeros((5, 2)), np.zeros((5, 2)), np.ones((5, 2), dtype=bool))]))
