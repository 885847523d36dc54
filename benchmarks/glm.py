"""The coupled GLM against NeMoS and scikit-learn: CPU time, memory, distance from the exact minimum.

    python benchmarks/glm.py                              # ours and scikit-learn
    python benchmarks/glm.py --nemos VENV/bin/python      # NeMoS too, from an environment that has it (10 CPU-minutes)
    python benchmarks/glm.py --cases n20 n100 --write     # and write benchmarks/results/glm.md
    python benchmarks/glm.py --cases hour300              # an hour of 300 units, on a GPU

Simulated populations, 0.05 spikes a bin, 8 log-raised cosines over 100 bins, ridge 1e-4 (specs/glm.md, section 4).
Every job is a process of its own on one thread; its CPU seconds and memory count from after its imports. The gap is the
objective (summed over units, nats a bin) of the coefficients it returns, evaluated in float64, above the minimum.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

HISTORY, FUNCTIONS, STRENGTH = 100, 8, 1e-4
RESULTS = Path(__file__).parent / "results" / "glm.md"
CASES = {
    "n20": {"units": 20, "bins": 100_000},
    "n100": {"units": 100, "bins": 100_000},
    "hour": {"units": 100, "bins": 360_000},
    "raw": {"units": 20, "bins": 100_000, "raw": True},
    "page": {"units": 4, "bins": 100},
    "hour300": {"units": 300, "bins": 360_000, "copies": 360},
}
JOBS = {
    "n20": ["ours", "ours_float64", "sklearn", "nemos"],
    "n100": ["ours", "ours_float64", "ours_low", "ours_group_lasso", "sklearn", "nemos"],
    "hour": ["ours"],
    "raw": ["ours"],
    "page": ["ours_page", "nemos_page"],
    "hour300": ["ours_gpu", "ours_gpu_float64"],
}
NAMES = {
    "ours": "float32",
    "ours_float64": "float64, to 1e-15",
    "ours_low": "float32, memory: low",
    "ours_group_lasso": "float32, group lasso 2e-4",
    "sklearn": "scikit-learn newton-cholesky, float64",
    "nemos": "NeMoS 0.2.8 LBFGS float32, 500 steps",
    "ours_gpu": "float32 on a GPU",
    "ours_gpu_float64": "float64 on a GPU, to 1e-15",
    "ours_page": "the three fits of NeMoS's how-to page on raw history",
    "nemos_page": "the same, NeMoS 0.2.8 defaults",
}
SKLEARN_UNITS = 2
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def network(units: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Filters (sender, lag, receiver) and log-rates of a network near 0.05 spikes a bin, a fifth of pairs connected."""
    from pipeline_lib.bases import RaisedCosineLog

    kernel = RaisedCosineLog(FUNCTIONS).kernel(HISTORY)
    connected = random.random((units, units, 1)) < 0.2
    weights = random.normal(size=(units, units, FUNCTIONS)) * connected * 0.3 / np.sqrt(0.2 * units)
    weights[np.arange(units), np.arange(units)] = [-2.0, -1.0, -0.5, -0.2, 0, 0, 0, 0]
    return np.einsum("ijb,kb->ikj", weights, kernel), np.log(0.05) + 0.3 * random.normal(size=units)


def simulate(units: int, bins: int, seed: int = 0) -> np.ndarray:
    """Counts (bins, units) uint8 of a `network`."""
    random = np.random.default_rng(seed)
    filters, base = network(units, random)
    counts, coming = np.zeros((bins, units), dtype=np.uint8), np.zeros((HISTORY, units))
    for bin_ in range(bins):
        slot = bin_ % HISTORY
        rate = np.exp(np.minimum(base + coming[slot], 0.7))
        coming[slot] = 0.0
        counts[bin_] = np.minimum(random.poisson(rate), 255)
        for sender in np.flatnonzero(counts[bin_]):
            coming += counts[bin_, sender] * np.roll(filters[sender], (bin_ + 1) % HISTORY, axis=0)
    return counts


def simulate_copies(units: int, bins: int, copies: int, seed: int = 0) -> np.ndarray:
    """The same from that many copies of the network side by side, laid end to end: one matrix product a step.

    The first `HISTORY` bins of a copy do not follow from those before them, which costs a fit 10 % of its bins here.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    filters, base = (
        torch.from_numpy(array).float().to(device) for array in network(units, np.random.default_rng(seed))
    )
    random, steps = torch.Generator(device).manual_seed(seed), bins // copies
    counts = torch.zeros(copies, steps, units, dtype=torch.uint8, device=device)
    coming = torch.zeros(copies, HISTORY, units, device=device)
    for step in range(steps):
        spikes = torch.poisson((base + coming[:, 0]).clamp(max=0.7).exp(), generator=random).clamp(max=255)
        counts[:, step] = spikes.to(torch.uint8)
        coming = coming.roll(-1, dims=1)
        coming[:, -1] = 0.0
        coming += (spikes @ filters.flatten(1)).view_as(coming)
    return counts.flatten(0, 1).cpu().numpy()


def problem_data(case: dict, counts: np.ndarray):
    """The engine's data of a case."""
    from pipeline_lib.bases import RaisedCosineLog
    from pipeline_lib.models.glm.data import Data

    units = np.arange(counts.shape[1])
    kernel = np.eye(HISTORY) if case.get("raw") else RaisedCosineLog(FUNCTIONS).kernel(HISTORY)
    return Data(counts, np.array([[HISTORY, len(counts)]]), kernel, units, units)


def fit_ours(job: str, case: dict, counts: np.ndarray) -> dict:
    import torch

    from pipeline_lib.models.glm.engine import fit
    from pipeline_lib.models.glm.observation import PoissonExp
    from pipeline_lib.models.glm.penalties import Penalty

    dtype = torch.float64 if job.endswith("float64") else torch.float32
    device = "cuda" if job.startswith("ours_gpu") else "cpu"
    mode = "low" if job == "ours_low" else "fast"
    sparse = job == "ours_group_lasso"
    penalty = Penalty("group_lasso") if sparse else None
    start = begin()
    data = problem_data(case, counts)
    strength = 2e-4 if sparse else STRENGTH
    solution, _ = fit(data, PoissonExp(), strength, penalty=penalty, dtype=dtype, device=device, memory=mode)
    note = solution.describe()
    if device == "cuda":
        note += f"; {torch.cuda.get_device_name()}, {torch.cuda.max_memory_allocated() / 1e9:.2f} GB of its memory"
    return finished(start, solution.coefficients.cpu().numpy(), note)


def fit_sklearn(job: str, case: dict, counts: np.ndarray) -> dict:
    from sklearn.linear_model import PoissonRegressor

    from pipeline_lib.bases import Convolve, RaisedCosineLog

    units = counts.shape[1]
    design = Convolve(RaisedCosineLog(FUNCTIONS), HISTORY).compute(counts)[HISTORY:]
    start = begin()
    chosen = range(min(units, SKLEARN_UNITS))
    coefficients = np.zeros((len(chosen), design.shape[1] + 1))
    for unit in chosen:
        model = PoissonRegressor(alpha=STRENGTH, solver="newton-cholesky", tol=1e-9, max_iter=100)
        model.fit(design, counts[HISTORY:, unit])
        coefficients[unit] = np.r_[model.intercept_, model.coef_]
    result = finished(start, coefficients, note=f"CPU of {len(chosen)} units x {units // len(chosen)}; X given")
    return result | {"cpu": result["cpu"] * units / len(chosen)}


def fit_nemos(job: str, case: dict, counts: np.ndarray) -> dict:
    import nemos

    start = begin()
    basis = nemos.basis.RaisedCosineLogConv(FUNCTIONS, window_size=HISTORY)
    design = basis.compute_features(counts.astype(np.float32))
    model = nemos.glm.PopulationGLM(regularizer="Ridge", regularizer_strength=STRENGTH, solver_name="LBFGS")
    model.fit(design, counts.astype(np.float32))
    coefficients = np.concatenate([np.asarray(model.intercept_)[:, None], np.asarray(model.coef_).T], axis=1)
    return finished(start, coefficients.astype(np.float64), note="includes features and compilation")


def page_ours(counts: np.ndarray) -> dict:
    """NeMoS's how-to page: raw history, a basis of three functions, a mask; the degenerate basis is reported."""
    from pipeline_lib.bases import Convolve, RaisedCosineLog, RawHistory, kernel_rank
    from pipeline_lib.models.glm.data import Data
    from pipeline_lib.models.glm.engine import fit
    from pipeline_lib.models.glm.observation import PoissonExp

    start, units, notes = begin(), np.arange(counts.shape[1]), []
    mask = np.ones((4, 4), dtype=bool)
    mask[[0, 3], [1, 2]] = False
    raw, cosines = (RawHistory(10), 10), (RaisedCosineLog(3), 3)
    for (basis, window), allowed in ((raw, None), (cosines, None), (cosines, mask)):
        kernel = basis.kernel(window)
        Convolve(basis, window).compute(counts)
        columns = None if allowed is None else np.repeat(allowed.T, kernel.shape[1], axis=1)
        data = Data(counts, np.array([[window, len(counts)]]), kernel, units, units)
        solution, _ = fit(data, PoissonExp(), 1e-3, columns)
        rank = kernel_rank(kernel)
        degenerate = f", basis of rank {rank}" * (rank < kernel.shape[1])
        notes.append(f"{int(solution.converged.sum())} of 4 converged{degenerate}")
    return finished(start, np.zeros(0), note="; ".join(notes))


def page_nemos(counts: np.ndarray) -> dict:
    """The same with NeMoS's defaults."""
    import nemos

    start, failed = begin(), 0
    basis = nemos.basis.RaisedCosineLogConv(3, window_size=3)
    raw = nemos.basis.HistoryConv(10)
    mask = np.ones((4, 4))
    mask[[0, 3], [1, 2]] = 0
    for each, allowed in ((raw, None), (basis, None), (basis, np.repeat(mask, 3, axis=0))):
        features = each.compute_features(counts.astype(float))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            nemos.glm.PopulationGLM(feature_mask=allowed).fit(features, counts.astype(float))
        failed += any("did not converge" in str(warning.message) for warning in caught)
    return finished(start, np.zeros(0), note=f"{failed} of 3 fits did not converge; includes compilation")


def begin() -> tuple[float, float, float]:
    """CPU seconds, wall seconds, memory in use (MB); the kernel's record of peak memory starts again from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return time.process_time(), time.perf_counter(), memory("VmRSS")


def finished(start: tuple[float, float, float], coefficients: np.ndarray, note: str) -> dict:
    now = time.process_time(), time.perf_counter(), memory("VmHWM")
    cpu, wall, peak = (after - before for after, before in zip(now, start, strict=True))
    return {"cpu": cpu, "wall": wall, "peak": peak, "note": note, "coefficients": coefficients}


def memory(field: str) -> float:
    """MB of this process: VmRSS now, VmHWM at its peak."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


def work(job: str, case: str, counts_path: str, out: str) -> None:
    """Run one job in this process and store what it found."""
    counts = np.load(counts_path)
    pages = {"ours_page": page_ours, "nemos_page": page_nemos}
    if job in pages:
        Path(out).with_suffix(".json").write_text(json.dumps({**pages[job](counts), "coefficients": None}))
        np.save(out, np.zeros(0))
        return
    fits = {"sklearn": fit_sklearn, "nemos": fit_nemos}
    if job not in fits:
        # Imports and the first use of the libraries are not the fit's.
        fit_ours(job, CASES[case], simulate(3, 1000))
    result = fits.get(job, fit_ours)(job, CASES[case], counts)
    np.save(out, result.pop("coefficients"))
    Path(out).with_suffix(".json").write_text(json.dumps(result))


def run(job: str, case: str, counts_path: Path, directory: Path, python: str) -> dict:
    """Run one job in a process of its own, on one thread."""
    out = directory / f"{case}_{job}.npy"
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"OMP_WAIT_POLICY": "PASSIVE", "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [python, __file__, "--work", job, case, str(counts_path), str(out)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return json.loads(out.with_suffix(".json").read_text()) | {"coefficients": np.load(out)}


def objective(case: dict, counts: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Objective of each unit at `coefficients`, float64, counts' own constants left out."""
    import torch

    from pipeline_lib.models.glm.design import Design
    from pipeline_lib.models.glm.observation import PoissonExp

    device = "cuda" if torch.cuda.is_available() else "cpu"
    design = Design(problem_data(case, counts), torch.float64, device, memory="low")
    points = torch.from_numpy(coefficients).to(device)
    value, _ = design.pass_over(points, torch.arange(len(points), device=device), PoissonExp().loss_)
    return (value / design.frames + 0.5 * STRENGTH * (points[:, 1:] ** 2).sum(1)).cpu().numpy()


def compare(case: str, fits: list[str], nemos: str | None, directory: Path) -> list[str]:
    """Rows of the table for one case; `fits` keys of `NAMES`."""
    settings = CASES[case]
    page = np.random.default_rng(0).poisson(0.7, (100, 4)).astype(np.uint8)
    size = settings["units"], settings["bins"]
    if "copies" in settings:
        counts = simulate_copies(*size, settings["copies"])
    else:
        counts = page if case == "page" else simulate(*size)
    counts_path = directory / f"{case}.npy"
    np.save(counts_path, counts)
    rows, best = [], None
    exact = next((job for job in JOBS[case] if job.endswith("float64")), None)
    if exact is not None:
        best = run(exact, case, counts_path, directory, sys.executable)["coefficients"]
        minimum = objective(settings, counts, best)
    for job in JOBS[case]:
        if job not in fits or (job.startswith("nemos") and nemos is None):
            continue
        result = run(job, case, counts_path, directory, nemos if job.startswith("nemos") else sys.executable)
        found, gap, error = result["coefficients"], "", ""
        if best is not None and job != "ours_group_lasso":
            units = len(found)
            full = np.concatenate([found, best[units:]])
            gap = f"{(objective(settings, counts, full) - minimum)[:units].sum():.1e}"
            weights, minimal = found[:, 1:], best[:units, 1:]
            error = f"{100 * np.linalg.norm(weights - minimal) / np.linalg.norm(minimal):.2g} %"
        cells = [case, NAMES[job], f"{result['cpu']:.2f}", f"{result['wall']:.2f}", f"{result['peak']:.0f}", gap, error]
        rows.append("| " + " | ".join([*cells, result["note"]]) + " |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["n20", "n100"])
    parser.add_argument("--fits", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--nemos", metavar="PYTHON", help="interpreter of an environment with NeMoS")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--work", nargs=4, metavar=("JOB", "CASE", "COUNTS", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return
    table = [
        "| case | fit | CPU s | wall s | peak MB | gap | weights' error | note |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(table), flush=True)
    with tempfile.TemporaryDirectory() as directory:
        for case in options.cases:
            table += compare(case, options.fits, options.nemos, Path(directory))
    if options.write:
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        lines = ["# Coupled GLM: measured", "", *__doc__.strip().split("\n\n")[2:], "", *table, ""]
        lines += [f"Load average of the machine at the end: {load} on {os.cpu_count()} cores.", ""]
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
