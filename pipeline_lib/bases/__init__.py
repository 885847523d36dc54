"""Basis functions for spike history and task variables, and the features made from them.

>>> from pipeline_lib.bases import Convolve, Evaluate, RaisedCosineLog, BSpline
>>> history = Convolve(RaisedCosineLog(8), window=100, label="history")
>>> position = Evaluate(BSpline(6), bounds=(0.0, 1.0), label="position")
>>> features = history + position            # columns side by side
>>> X = features.compute(counts, x)          # (bins, units * 8 + 6), NaN where the window is not yet full
>>> features.split_by_feature(coefficients)  # {"history": (units, 8, ...), "position": (6, ...)}
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
