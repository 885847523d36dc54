"""Basis functions for spike history and task variables, and the features made from them.

>>> import numpy as np
>>> from pipeline_lib.bases import Convolve, Evaluate, RaisedCosineLog, BSpline
>>> counts, x = np.ones((500, 3)), np.linspace(0, 1, 500)   # bins of 3 units, and where the animal was
>>> history = Convolve(RaisedCosineLog(8), window=100, label="history")
>>> position = Evaluate(BSpline(6), bounds=(0.0, 1.0), label="position")
>>> features = history + position            # columns side by side
>>> features.compute(counts, x).shape       # (bins, units * 8 + 6), NaN where the window is not yet full
(500, 30)
"""

from pipeline_lib.bases.features import Convolve, Evaluate, Features
from pipeline_lib.bases.functions import (
    Basis,
    BSpline,
    CyclicBSpline,
    Exponential,
    RaisedCosineLinear,
    RaisedCosineLog,
    RawHistory,
    basis_by_name,
    kernel_rank,
)

__all__ = [
    "BSpline",
    "Basis",
    "Convolve",
    "CyclicBSpline",
    "Evaluate",
    "Exponential",
    "Features",
    "RaisedCosineLinear",
    "RaisedCosineLog",
    "RawHistory",
    "basis_by_name",
    "kernel_rank",
]
