"""Gaussian-process factor analysis: few smooth latents behind all units, fitted by exact expectation-maximisation."""

from pipeline_lib.models.gpfa.model import Gpfa

MODEL = Gpfa
