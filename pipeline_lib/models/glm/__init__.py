"""The coupled GLM: who drives whom in a population, exactly fitted in seconds.

A way through the files, each of which needs those above it only::

    settings                            what can be set
    frames, gain, inputs                windows become counts and columns, frame by frame
    blocks, data, stream                both as the engine reads them, block by block: in memory, or from the store
    products, design                    the design matrix: applied and transposed, never built
    observation, penalties              the objective
    precondition, descent               its shape, and what all descents have in common
    optimiser, sparse, engine           its minimum, for all units at once
    path, crossvalidation, dispersion   which strength, how variable counts are
    low_rank, inference                 what else a fit may find: channels, errors and tests
    training                            the fit of a session
    prediction, share, tables           what is made of it
    model                               all this as a model of the pipeline
    goodness, simulation                for whoever wants to look closer: how good it is, spikes from it

``engine`` fits counts without a pipeline::

    from pipeline_lib.models.glm.data import Data
    from pipeline_lib.models.glm.engine import fit
    from pipeline_lib.models.glm.observation import PoissonExp

    solution, problem = fit(Data(counts, segments, kernel, senders, receivers), PoissonExp(), strength=1e-4)
"""

from pipeline_lib.models.glm.model import CoupledGLM

MODEL = CoupledGLM
