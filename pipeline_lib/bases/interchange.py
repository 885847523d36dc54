"""Bases to and from NeMoS: the same columns in the same order, so that weights of one fit mean the same in the other.

NeMoS is needed by `to_nemos` alone, and imported there; it is not among this package's requirements.
"""

from functools import reduce
from operator import add, mul
from typing import Any

from pipeline_lib.bases.features import Convolve, Evaluate, Features, Product, Sum
from pipeline_lib.bases.functions import Basis, BSpline, CyclicBSpline, RaisedCosineLinear, RaisedCosineLog, RawHistory
from pipeline_lib.errors import InputError

PAIRS: dict[str, tuple[type[Basis], dict[str, str]]] = {
    "RaisedCosineLinear": (RaisedCosineLinear, {"n": "n_basis_funcs", "width": "width"}),
    "RaisedCosineLog": (
        RaisedCosineLog,
        {
            "n": "n_basis_funcs",
            "width": "width",
            "time_scaling": "time_scaling",
            "decay_to_zero": "enforce_decay_to_zero",
        },
    ),
    "BSpline": (BSpline, {"n": "n_basis_funcs", "order": "order"}),
    "CyclicBSpline": (CyclicBSpline, {"n": "n_basis_funcs", "order": "order"}),
    "History": (RawHistory, {"n": "window_size"}),
}
"""By NeMoS's name without Conv or Eval: our class, and what our fields are called there."""
_KINDS = ", ".join(f"{name}Conv/{name}Eval" for name in PAIRS if name != "History") + ", HistoryConv"


def from_nemos(basis: Any) -> Features:
    """The features that compute what a NeMoS `basis` (0.2.8) computes: sums and products of its one-input bases.

    Raises
    ------
    InputError : a basis without counterpart here, an Eval basis without bounds, convolution arguments other than
        `predictor_causality`.
    """
    name = type(basis).__name__
    if name in ("AdditiveBasis", "MultiplicativeBasis"):
        parts = from_nemos(basis.basis1), from_nemos(basis.basis2)
        return parts[0] + parts[1] if name == "AdditiveBasis" else parts[0] * parts[1]
    stem, kind = name[:-4], name[-4:]
    if stem not in PAIRS or kind not in ("Conv", "Eval"):
        raise InputError("NeMoS basis", "type", name, _KINDS)
    ours, fields = PAIRS[stem]
    functions = ours(**{field: getattr(basis, theirs) for field, theirs in fields.items()})
    if kind == "Eval":
        if basis.bounds is None:
            raise InputError("NeMoS basis", "bounds", None, "(low, high): training and test data share one axis")
        low, high = basis.bounds
        return Evaluate(functions, (float(low), float(high)), basis.label)
    settings = dict(basis.conv_kwargs)
    causality = settings.pop("predictor_causality", "causal")
    if settings:
        raise InputError("NeMoS basis", "conv_kwargs", ", ".join(settings), "predictor_causality alone")
    return Convolve(functions, basis.window_size, basis.label, causality)


def to_nemos(features: Features) -> Any:
    """The NeMoS basis whose `compute_features` gives what `features.compute` gives.

    Raises
    ------
    InputError : functions that NeMoS does not have (`Exponential`: there they are orthogonalised otherwise).
    ImportError : NeMoS is not installed.
    """
    import nemos

    if isinstance(features, Sum | Product):
        return reduce(add if isinstance(features, Sum) else mul, map(to_nemos, features.terms))
    assert isinstance(features, Convolve | Evaluate)
    functions = features.basis
    stem = next((name for name, (ours, _) in PAIRS.items() if type(functions) is ours), None)
    if stem is None or (stem == "History" and isinstance(features, Evaluate)):
        accepted = ", ".join(ours.__name__ for ours, _ in PAIRS.values())
        raise InputError("features", "basis", type(functions).__name__, f"{accepted} (RawHistory in Convolve)")
    arguments = {theirs: getattr(functions, field) for field, theirs in PAIRS[stem][1].items()}
    arguments["label"] = features.label
    if isinstance(features, Evaluate):
        return getattr(nemos.basis, f"{stem}Eval")(**arguments, bounds=features.bounds)
    arguments["window_size"] = features.window
    causality = {"predictor_causality": features.causality}
    return getattr(nemos.basis, f"{stem}Conv")(**arguments, conv_kwargs=causality)
