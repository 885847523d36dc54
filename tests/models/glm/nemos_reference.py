"""Writes nemos_reference.npz: what NeMoS 0.2.8 finds for a small population, in float64 at tight tolerance.

Run with an environment that has NeMoS: ``python nemos_reference.py counts.npy``. The counts are those of
`networks.simulate_network(4, 3000, seed=5)`; the reference holds them too.
"""

import sys
from pathlib import Path

import jax
import nemos
import numpy as np

STRENGTH, HISTORY, FUNCTIONS = 1e-3, 30, 5


def main(counts_path: str) -> None:
    jax.config.update("jax_enable_x64", True)
    counts = np.load(counts_path)
    basis = nemos.basis.RaisedCosineLogConv(FUNCTIONS, window_size=HISTORY)
    design = np.asarray(basis.compute_features(counts.astype(float)))
    found = {"counts": counts, "design": design[HISTORY : HISTORY + 50].astype(np.float64)}
    mask = np.random.default_rng(0).random((4, 4)) < 0.6
    found["mask"] = mask  # (sender, receiver)
    settings = {"tol": 1e-13, "maxiter": 20_000}
    for name, feature_mask in (("full", None), ("masked", np.repeat(mask.astype(float), FUNCTIONS, axis=0))):
        model = nemos.glm.PopulationGLM(
            regularizer="Ridge",
            regularizer_strength=STRENGTH,
            solver_name="LBFGS",
            solver_kwargs=settings,
            feature_mask=feature_mask,
        )
        model.fit(design, counts.astype(float))
        found[f"{name}_coef"] = np.asarray(model.coef_)  # (features, units)
        found[f"{name}_intercept"] = np.asarray(model.intercept_)
        for score in ("log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"):
            per_unit = model.score(
                design, counts.astype(float), score_type=score, aggregate_sample_scores=lambda x: x.mean(axis=0)
            )
            found[f"{name}_{score}"] = np.asarray(per_unit)
    s = np.linspace(0, 1, 37)
    found["s"] = s
    evaluated = {
        "RaisedCosineLinear": nemos.basis.RaisedCosineLinearEval(7, width=1.5),
        "RaisedCosineLog": nemos.basis.RaisedCosineLogEval(8),
        "BSpline": nemos.basis.BSplineEval(7, order=3),
        "CyclicBSpline": nemos.basis.CyclicBSplineEval(7),
    }
    found |= {f"basis_{name}": np.asarray(each.compute_features(s)) for name, each in evaluated.items()}
    for causality in ("causal", "acausal", "anti-causal"):
        convolve = nemos.basis.BSplineConv(5, window_size=6, conv_kwargs={"predictor_causality": causality})
        found[f"conv_{causality}"] = np.asarray(convolve.compute_features(counts[:40].astype(float)))
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **found)


if __name__ == "__main__":
    main(sys.argv[1])
