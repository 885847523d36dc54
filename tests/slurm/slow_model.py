"""A user's model that takes a minute and a half: rates wander in many small random steps, checkpointed when asked."""

import time
from dataclasses import dataclass

import numpy as np

from pipeline_lib.models.contract import Model


@dataclass(frozen=True)
class Config:
    steps: int = 450
    pause: float = 0.2


class Slow(Model):
    Config = Config
    sees = "nothing"

    def fit(self, data, run):
        saved = run.resume()
        first = 0 if saved is None else int(saved.pop("step"))
        self.rates = saved or {session: np.ones(data.trains[session].n_units) for session in data.sessions}
        print("first step", first, flush=True)
        for step in range(first, self.config.steps):
            rng = np.random.default_rng([self.seed, step])
            for rates in self.rates.values():
                rates *= np.exp(0.01 * rng.standard_normal(len(rates)))
            run.progress(step + 1, self.config.steps, 0.0)
            run.checkpoint(lambda: self.rates | {"step": np.array(step + 1)})  # noqa: B023 - called at once
            time.sleep(self.config.pause)

    def predict(self, data, session, samples):
        return np.tile(self.rates[session], (len(samples), int(samples["bins"].max()), 1)).astype(np.float32)

    def state(self):
        return self.rates

    def load_state(self, state):
        self.rates = state


MODEL = Slow
