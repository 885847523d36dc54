"""The coupled GLM: who drives whom in a population, exactly fitted in seconds.

``model`` is the pipeline's model; ``engine`` fits counts without a pipeline::

    from pipeline_lib.models.glm.data import Data
    from pipeline_lib.models.glm.engine import fit
    from pipeline_lib.models.glm.observation import PoissonExp

    solution, problem = fit(Data(counts, segments, kernel, senders, receivers), PoissonExp(), strength=1e-4)
"""

from pipeline_lib.models.glm.model import CoupledGLM

MODEL = CoupledGLM
