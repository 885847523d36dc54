"""The Neural Data Transformer: fills in the counts it was not shown, and so learns the rates behind them."""

from pipeline_lib.models.ndt.model import NDT

MODEL = NDT
