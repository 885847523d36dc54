"""Bases to NeMoS and back: the same columns from the same data, by NeMoS itself."""

import numpy as np
import pytest

from pipeline_lib.bases import (
    BSpline,
    Convolve,
    CyclicBSpline,
    Evaluate,
    Exponential,
    RaisedCosineLinear,
    RaisedCosineLog,
    RawHistory,
)
from pipeline_lib.bases.interchange import from_nemos, to_nemos
from pipeline_lib.errors import InputError

nemos = pytest.importorskip("nemos", reason="NeMoS is not installed")

RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.poisson(0.5, (200, 3)).astype(float)
POSITION, PHASE = RANDOM.uniform(-1.0, 3.0, 200), RANDOM.uniform(0, 2 * np.pi, 200)

HISTORY = Convolve(RaisedCosineLog(4, width=2.5, time_scaling=20.0, decay_to_zero=False), 12, "history")
PLACE = Evaluate(BSpline(5, order=3), (0.0, 2.0), "place")
TURN = Evaluate(CyclicBSpline(6), (0.0, 2 * np.pi), "turn")


@pytest.mark.parametrize(
    ("features", "inputs"),
    [
        (HISTORY, (COUNTS,)),
        (Convolve(RawHistory(7), 7, "raw"), (COUNTS,)),
        (Convolve(RaisedCosineLinear(5), 9, "both sides", "acausal"), (COUNTS,)),
        (Convolve(BSpline(5), 9, "future", "anti-causal"), (COUNTS,)),
        (Evaluate(RaisedCosineLinear(4, width=1.5), (0.0, 2.0)), (POSITION,)),
        (HISTORY + PLACE + TURN, (COUNTS, POSITION, PHASE)),
        (PLACE * TURN, (POSITION, PHASE)),
        (HISTORY + PLACE * TURN, (COUNTS, POSITION, PHASE)),
    ],
)
def test_nemos_computes_the_same_columns_there_and_back(features, inputs):
    theirs = to_nemos(features)
    expected = features.compute(*inputs)
    np.testing.assert_allclose(np.asarray(theirs.compute_features(*inputs)), expected, atol=1e-6)
    back = from_nemos(theirs)
    assert back == features
    np.testing.assert_array_equal(back.compute(*inputs), expected)


def test_what_has_no_counterpart_is_refused():
    with pytest.raises(InputError, match=r"MSplineEval.*RaisedCosineLinearConv"):
        from_nemos(nemos.basis.MSplineEval(5))
    with pytest.raises(InputError, match="bounds"):
        from_nemos(nemos.basis.BSplineEval(5))
    with pytest.raises(InputError, match=r"conv_kwargs.*shift"):
        from_nemos(nemos.basis.BSplineConv(5, window_size=9, conv_kwargs={"shift": False}))
    with pytest.raises(InputError, match="Exponential"):
        to_nemos(Convolve(Exponential(3), 9))
