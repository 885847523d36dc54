"""Golden data of the small figures. `python -m tests.figures.golden` writes them anew; look at the difference."""

import tempfile
from pathlib import Path

import pandas as pd

from pipeline_lib.figures import FIGURES
from tests.figures.made_up_results import Results, write_results

FOLDER = Path(__file__).parent / "golden"
NAMES = ("score_table", "model_comparison", "score_scaling", "speed", "session_counts")


def golden_table(name: str, results: Results) -> pd.DataFrame:
    """The table behind a figure of all results, or what the selection of a session kept."""
    if name == "session_counts":
        table = FIGURES["session_overview"].load().data(results.recording)
        return table.loc[table["panel"] == "count", ["region", "value", "of"]].reset_index(drop=True)
    spec = FIGURES[name]
    return spec.load().data(**{need: results.of(spec.scope)[need] for need in spec.needs})


def three_sessions(directory: Path) -> Results:
    """Sessions of different size in one tree; the paths are those of the first."""
    sizes = {"small": (12, 40), "middle": (20, 60), "large": (30, 90)}
    trees = [
        write_results(directory, session, seed=seed, units=units, trials=trials)
        for seed, (session, (units, trials)) in enumerate(sizes.items())
    ]
    return trees[0]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = three_sessions(Path(folder))
        for each in NAMES:
            golden_table(each, tree).to_csv(FOLDER / f"{each}.csv", index=False, float_format="%.6g")
