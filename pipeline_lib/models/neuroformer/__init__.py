"""Neuroformer: a population's spikes as a sequence of events, written one after the other given what came before."""

from pipeline_lib.models.neuroformer.model import NeuroformerModel

MODEL = NeuroformerModel
