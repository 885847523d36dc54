"""The GLM-Transformer: who drives whom between populations, beside a background of each trial's own."""

from pipeline_lib.models.glm_transformer.model import GLMTransformerModel

MODEL = GLMTransformerModel
