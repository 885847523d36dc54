"""LFADS: a recurrent generator whose initial state and inputs are inferred from the spikes of a single trial."""

from pipeline_lib.models.lfads.model import LFADS

MODEL = LFADS
