"""Trainyard: public neural recordings in; trained, compared and drawn models of population spike trains out.

The line the data travels, one package a station::

    sources -> recording -> trains -> models + training -> evaluation -> figures

Nothing heavy is imported here, so that `import pipeline_lib` stays quick: torch loads only in the modules that
hold tensors.
"""

__version__ = "0.1.0"
