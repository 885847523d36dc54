"""LFADS: a recurrent generator whose initial state and inputs are inferred from the spikes of a single trial.

A way through the files, each of which needs those above it only::

    settings                            what can be set
    noise, spikes, concealment          random masks, counts of which most are 0, and what the encoders are shown
    alignment, head                     what belongs to a session: read-in and read-out
    products, cell, sequence            a recurrent network over a window, with a hand-written gradient: the encoders
    lagged_codes, controlled            the same for controller and generator, and what the controller is given
    divergence, likelihood              the terms of the loss
    network                             the equations of `specs/lfads.md`
    model                               all this as a model of the pipeline
"""

from pipeline_lib.models.lfads.model import LFADS

MODEL = LFADS
