"""Settings of networks small enough for tests."""

from dataclasses import replace

from pipeline_lib.models.lfads.settings import Config

SMALL = Config(
    steps=4, warmup=1, evaluate_every=2, batch=8, initial_encoder=8, initial_conditions=4, input_encoder=6,
    controller=5, generator=9, factors=3, kl_ramp=(0, 4), l2_ramp=(0, 4), l2_encoders=1.0,
)  # fmt: skip
CONTROLLED = replace(SMALL, inferred_inputs=2)
