"""A cluster for the whole session of tests, and projects that run on it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.slurm.cluster import Cluster, why_not
from tests.workflow.project import REPOSITORY, SMALL, Project

HERE = Path(__file__).parent
NDT = {"steps": 40, "evaluate_every": 20, "layers": 1, "heads": 1, "hidden": 16, "read_in": 8}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Submitted(Project):
    """A project whose runs go through the slurm profile."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        profile = folder / "workflow/profiles/slurm/profile.v9+.yaml"
        settings = yaml.safe_load(profile.read_text())
        # Only what costs a test time: how often the queue is asked, and how long a file may take to show.
        settings |= {"slurm-init-seconds-before-status-checks": 2, "seconds-between-status-checks": 2}
        profile.write_text(yaml.safe_dump(settings | {"latency-wait": 10}))

    def submit(self, *arguments: str) -> list[str]:
        command = self.command(*arguments)
        at = command.index("--cores")
        return [*command[:at], "--workflow-profile", "workflow/profiles/slurm", *command[at + 2 :]]


class Small(Submitted):
    """A session, a model that asks for a GPU and one that does not: a SLURM job costs eight CPU-seconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shutil.copy(HERE / "slow_model.py", folder / "slow_model.py")
        (folder / "config/models/slow.yaml").write_text("implementation: slow_model.py\n")
        self.config = SMALL | {"models": ["mean_rate", "ndt"]}
        self.config["cohorts"] = {"pair": SMALL["cohorts"]["pair"] | {"model_settings": {"ndt": NDT}}}
        self.write_config(self.config)


class Demo(Submitted):
    """The demo as it is shipped."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in ("config.yaml", "sessions.tsv"):
            shutil.copy(REPOSITORY / "config" / name, folder / "config" / name)
        shipped = yaml.safe_load((folder / "config/config.yaml").read_text())
        self.splits = [f"results/splits/{cohort}.parquet" for cohort in shipped["cohorts"]]
