"""LFADS that starts from another fit's weights: those of a cohort, for one of its sessions or a new one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.training.run import Run, write_arrays
from tests.models.lfads.small import SMALL
from tests.small_cohort import open_cohort, recording, write_cohort

ONE_STEP = replace(SMALL, steps=1, evaluate_every=1)


def test_from_several_sessions_to_one(tmp_path: Path) -> None:
    """One session is read without a read-in, where none is asked for; what is to be asked for is said."""
    made = [recording("one", 5, units=7, trials=12), recording("two", 6, units=9, trials=12)]
    before = LFADS(ONE_STEP, 0)
    before.fit(open_cohort(*write_cohort(tmp_path / "a", made=made), fitting=True), Run(tmp_path / "a"))
    write_arrays(tmp_path / "w.safetensors", before.state())
    new = open_cohort(*write_cohort(tmp_path / "b", made=[recording("new", 7, units=5, trials=12)]), fitting=True)
    start = replace(ONE_STEP, initial=str(tmp_path / "w.safetensors"), freeze=("generator.*",))
    with pytest.raises(InputError, match="read_in: found none, as of one session; accepted: read_in: 3"):
        LFADS(start, 0).fit(new, Run(tmp_path / "b"))
    with pytest.raises(InputError, match="read_in: found 4; accepted: read_in: 3"):
        LFADS(replace(start, read_in=4), 0).fit(new, Run(tmp_path / "b"))
    after = LFADS(replace(start, read_in=3), 0)
    after.fit(new, Run(tmp_path / "c"))
    state, frozen = after.state(), [name for name in before.state() if name.startswith("generator.")]
    assert frozen and all(np.array_equal(state[name], before.state()[name]) for name in frozen)
    alone = LFADS(ONE_STEP, 0)
    alone.fit(new, Run(tmp_path / "d"))
    write_arrays(tmp_path / "w.safetensors", alone.state())
    with pytest.raises(InputError, match="read_in: found 3; accepted: null, and one session"):
        LFADS(replace(start, read_in=3), 0).fit(new, Run(tmp_path / "e"))
