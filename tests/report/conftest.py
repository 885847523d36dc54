"""A results folder with two sessions, their figures, and a configuration that expected more than there is."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline_lib.figures import FIGURES, make
from tests.figures.made_up_results import MODELS, made_up_metrics, write_results

DRAWN = ("session_overview", "raster_rates", "psth", "coupling", "score_table", "training_curves")
"""Figures of every scope, one of which has nothing to draw in one of the sessions."""


@dataclass(frozen=True)
class Folder:
    """The results and the configuration that should have made them."""

    results: Path
    config: dict[str, Any]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("report")
    results = root / "results"
    trees = [write_results(results, "demo"), write_results(results, "other_session", mode="continuous", seed=2)]
    for name in DRAWN:
        spec = FIGURES[name]
        for tree in trees if spec.scope != "all" else trees[:1]:
            of = tree.session if spec.scope != "all" else ""
            make(name, tree.of(spec.scope), results / "figures" / of / name)
    hostile = results / "recordings" / "demo" / "recording.json"
    about = json.loads(hostile.read_text())
    about["citation"] = "Smith & Jones <script>document.title='broken'</script>"
    hostile.write_text(json.dumps(about))
    return Folder(results, configuration(root, results))


def configuration(root: Path, results: Path) -> dict[str, Any]:
    """Two sessions, four models, two seeds: of 16 fits the folder has 10, and of one a trace."""
    (root / "data").mkdir()
    (root / "data" / "spikes.csv").write_text("time,unit\n")
    rows = [f"{session}\ttables\tspikes.csv\t" for session in ("demo", "other_session")]
    (root / "sessions.tsv").write_text("\n".join(["session\tsource\tlocation\toptions", *rows]) + "\n")
    (root / "models").mkdir()
    for model in MODELS:
        (root / "models" / f"{model}.yaml").write_text("{}\n")
    (results / "scores" / "demo").mkdir(parents=True)
    shutil.copy(results / "metrics.parquet", results / "scores" / "demo")
    log = results / "logs" / "fit" / "demo" / "psth" / "seed1.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"line {k}\n" for k in range(40)) + "FitError: rates of unit 3 & <b>are not finite</b>\n")
    resume = results / "fits" / "demo" / "mean_rate" / "seed1" / ".resume"
    resume.mkdir(parents=True)
    (resume / "progress.json").write_text(json.dumps({"step": 120, "total": 500, "loss": 0.3}))
    return {
        "sessions": str(root / "sessions.tsv"),
        "results": str(results),
        "data": str(root / "data"),
        "model_directory": str(root / "models"),
        "models": list(MODELS),
        "seeds": [0, 1],
    }


@pytest.fixture(scope="session")
def many(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Two hundred and fifty sessions: copies of one under other names, with scores, and some with a figure."""
    results = tmp_path_factory.mktemp("many") / "results"
    sessions = [f"session{k:03d}" for k in range(250)]
    for session in sessions:
        shutil.copytree(folder.results / "recordings" / "demo", results / "recordings" / session)
    for session in sessions[::40]:
        target = results / "figures" / session
        target.mkdir(parents=True)
        for suffix in ("png", "pdf", "csv"):
            (target / f"psth.{suffix}").symlink_to(folder.results / f"figures/demo/psth.{suffix}")
    scores = [made_up_metrics(session, seed) for seed, session in enumerate(sessions)]
    pd.concat(scores, ignore_index=True).to_parquet(results / "metrics.parquet", index=False)
    return Folder(results, {})
