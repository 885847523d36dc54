"""A user's model in one file, made for being killed: rates wander in many small random steps.

What tests ask of it comes by environment variables, so that settings, and with them the fit's key, stay the same.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline_lib.models.contract import Couplings, Model


@dataclass(frozen=True)
class Config:
    steps: int = 60
    spoil: str = ""


class Walker(Model):
    Config = Config
    sees = "nothing"

    def fit(self, data, run):
        self.units = {session: data.trains[session].n_units for session in data.sessions}
        saved = run.resume()
        first = 0 if saved is None else int(saved.pop("step"))
        self.rates = {session: np.ones(count) for session, count in self.units.items()} if saved is None else saved
        note("resumed at" if saved else "started at", first)
        for step in range(first, self.config.steps):
            rng = np.random.default_rng([self.seed, step])
            for rates in self.rates.values():
                rates *= np.exp(0.1 * rng.standard_normal(len(rates)))
            run.log({"step": step, "loss": float(sum(rates.sum() for rates in self.rates.values()))})
            run.progress(step + 1, self.config.steps, 0.0)
            run.checkpoint(lambda: self.rates | {"step": np.array(step + 1)})  # noqa: B023 - called at once
            if saved is None and step == int(os.environ.get("WALKER_STOP_AT", -1)):
                os.kill(os.getpid(), getattr(signal, os.environ["WALKER_SIGNAL"]))
            if saved is None and step == int(os.environ.get("WALKER_FAIL_AT", -1)):
                raise RuntimeError("as asked")
            wait_for_gate()
        if self.config.spoil == "weights":
            self.rates[data.sessions[0]][2] = np.nan

    def predict(self, data, session, samples):
        rates = np.tile(self.rates[session], (len(samples), int(samples["bins"].max()), 1)).astype(np.float32)
        if self.config.spoil == "rates":
            rates[0, 3, 2] = np.nan
        if self.config.spoil == "sign":
            rates[0, 3, 2] = -1
        return rates[:, 1:] if self.config.spoil == "shape" else rates

    def state(self):
        return self.rates

    def load_state(self, state):
        self.rates = state

    def couplings(self, session):
        units = len(self.rates[session])
        filters = np.full((units, units, 4), 0.25, np.float32)
        return Couplings(filters, 20.0, filters.sum(axis=2))


def wait_for_gate():
    """Go on once the file WALKER_GATE is there, or fail after five minutes."""
    patience = time.monotonic() + 300
    while "WALKER_GATE" in os.environ and not Path(os.environ["WALKER_GATE"]).exists():
        if time.monotonic() > patience:
            raise TimeoutError("the gate stayed closed")
        time.sleep(0.02)


def note(*words):
    if "WALKER_NOTES" in os.environ:
        with Path(os.environ["WALKER_NOTES"]).open("a") as notes:
            print(*words, file=notes)


MODEL = Walker
