"""Neuroformer: a population's spikes as a sequence of events, written one after the other given what came before.

A way through the files, each of which needs those above it only::

    settings                            what can be set
    tokens, windows, signals            spikes as tokens, samples cut into windows, signals and frames beside them
    layers, modalities                  blocks of a transformer, and what windows attend to besides spikes
    law                                 the next token of independent Poisson units, which the network corrects
    regression, session                 what belongs to a session: units, and read-outs of behaviour
    context, reading, network           windows are read; the next token's bin, then its unit; rates
    independent                         the same with the heads of the public code
    objectives                          training that keeps the best weights of several terms
    sampling, drafts, generation        spikes are written
    likelihood, connectivity            how likely spikes are, and who drives whom
    statistics, report                  tables of a fit
    model                               all this as a model of the pipeline
    public, published                   the network of the public code as it is, and its weights
"""

from pipeline_lib.models.neuroformer.model import NeuroformerModel

MODEL = NeuroformerModel
