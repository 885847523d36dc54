"""What changes over the steps of a training, against its formulas."""

import math

import pytest

from pipeline_lib.training.schedule import averaging, decaying, learning_rate, ramp
from pipeline_lib.training.settings import TrainingSettings


@pytest.mark.parametrize("schedule", ["constant", "cosine", "inverse_root", "plateau"])
def test_every_schedule_rises_evenly_to_the_learning_rate(schedule: str) -> None:
    settings = TrainingSettings(learning_rate=0.4, schedule=schedule, warmup=5, steps=100, final_rate=0.1)  # type: ignore[arg-type]
    rates = [learning_rate(settings, step, 1.0) for step in range(settings.steps)]
    assert rates[:6] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4, rates[5]])
    assert max(rates) == pytest.approx(0.4) and min(rates[5:]) > 0.04
    assert (rates[5:] == [0.4] * 95) == (schedule in ("constant", "plateau"))
    assert [learning_rate(settings, step, 0.25) for step in (2, 50)] == pytest.approx([rates[2] / 4, rates[50] / 4])


def test_after_the_warm_up_each_falls_as_it_should() -> None:
    settings = TrainingSettings(learning_rate=2.0, warmup=16, steps=116, final_rate=0.5)
    halfway = 2.0 * (0.5 + 0.5 * 0.5)
    assert [learning_rate(settings, step, 1.0) for step in (16, 66, 116)] == pytest.approx([2.0, halfway, 1.0])
    # 1 / root of the step in units of the warm-up: a share of the learning rate, where the public NDT's is absolute.
    root = TrainingSettings(learning_rate=2.0, schedule="inverse_root", warmup=16, steps=10_000)
    assert [learning_rate(root, step, 1.0) for step in (15, 63, 1599)] == pytest.approx([2.0, 1.0, 0.2])
    without = TrainingSettings(learning_rate=2.0, schedule="inverse_root", warmup=0)
    assert [learning_rate(without, step, 1.0) for step in (0, 3)] == pytest.approx([2.0, 1.0])


def test_weight_decay_rises_over_its_ramp_and_is_left_to_the_kernel_without_one() -> None:
    settings = TrainingSettings(weight_decay=0.1, weight_decay_ramp=(10, 20))
    assert [decaying(settings, step) for step in (0, 10, 15, 20, 99)] == [0, 0, 0.5, 1, 1]
    assert decaying(TrainingSettings(weight_decay=0.1), 5) is None
    assert decaying(TrainingSettings(weight_decay_ramp=(10, 20)), 15) is None


def test_ramps_and_means_of_weights() -> None:
    assert [ramp(step, 10, 20) for step in (0, 9, 10, 15, 20, 99)] == [0, 0, 0, 0.5, 1, 1]
    assert [ramp(step, 10, 10) for step in (9, 10, 11)] == [0, 1, 1]
    settings = TrainingSettings(average=0.99)
    decays = [averaging(settings, step) for step in (0, 8, 10_000)]
    assert decays == pytest.approx([0.1, 0.5, 0.99]) and math.isclose(averaging(TrainingSettings(), 50), 0.0)
