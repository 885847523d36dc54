"""The GLM-Transformer: who drives whom between populations, beside a background of each trial's own.

A way through the files, each of which needs those above it only::

    settings                            what can be set
    bases, filters                      functions of lags and of time; what the past of a unit does now
    session, variational, network       weights of a session, the encoder of trials, and the log-rate made of its terms
    readout                             what weights say: filters of pairs of units and of populations
    start, stages                       where couplings start, and which weights are trained when
    inference, timing                   how sure a fit is of its couplings
    unit_scores, tables                 what is written down about it
    model                               all this as a model of the pipeline
    published                           weights of the public code
"""

from pipeline_lib.models.glm_transformer.model import GLMTransformerModel

MODEL = GLMTransformerModel
