"""What a fit refuses, before it begins: one line that says what was found and what is accepted."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.training.fit import fit, load_fit
from pipeline_lib.training.fit_ensemble import fit_ensemble
from tests.small_cohort import Cohort, recording, write_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_cohort(tmp_path_factory.mktemp("cohort"), made=[recording(trials=30)])


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_what_a_session_lacks_is_told_before_any_is_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: list[int]
) -> None:
    made = [recording("one"), recording("two")]
    made[0].signals = {"hand": pd.DataFrame({"time": [0.0, 9.0], "x": [0.0, 1.0]})}
    stores, split = write_cohort(tmp_path, made=made)
    for training in ("models.glm.training.train_session", "training.fit_ensemble._train"):
        monkeypatch.setattr(f"pipeline_lib.{training}", lambda *_: pytest.fail("something was fitted"))
    out, asked = [tmp_path / f"seed{seed}" for seed in seeds], {"signals": ["hand"]}
    with pytest.raises(InputError, match=r"session two: signals: found 'hand'; accepted: nothing"):
        if len(seeds) == 1:
            fit(stores, split, "glm", "glm", asked, 0, out[0])
        else:
            fit_ensemble(stores, split, "lfads", "lfads", asked, seeds, out)


def test_wrong_input(cohort: Cohort, tmp_path: Path) -> None:
    stores, split = cohort
    with pytest.raises(InputError, match="unknown key"):
        fit(stores, split, "psth", "psth", {"smooth": 1}, 0, tmp_path / "out")
    with pytest.raises(InputError, match="fit: seed: found -1; accepted: a whole number from 0 on"):
        fit(stores, split, "psth", "psth", {}, -1, tmp_path / "out")
    with pytest.raises(InputError, match=r"fit: seed: found 0\.5; accepted: a whole number from 0 on"):
        fit(stores, split, "psth", "psth", {}, 0.5, tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"manifest\.json"):
        fit([tmp_path], split, "psth", "psth", {}, 0, tmp_path / "out")
    other, _ = write_cohort(tmp_path / "other", made=[recording("other", trials=30)])
    with pytest.raises(InputError, match="only one of split and trains"):
        fit([*stores, *other], split, "psth", "psth", {}, 0, tmp_path / "out")
    both, split_of_both = write_cohort(tmp_path / "both", made=[recording(name, trials=30) for name in ("a", "b")])
    with pytest.raises(InputError, match="sessions: found b in only one of split and trains"):
        fit(both[:1], split_of_both, "psth", "psth", {}, 0, tmp_path / "out")
    with pytest.raises(InputError, match="sessions: found b in only one of split and trains"):
        fit_ensemble(both[:1], split_of_both, "ndt", "ndt", {}, [0, 1], [tmp_path / "out/0", tmp_path / "out/1"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="finished fit"):
        load_fit(tmp_path / "out")
