"""Where every result lies, written down once, for the rules, the command line and the report.

Each method names the file that declares a stage complete; its folder holds the rest. Given a wildcard in braces instead
of a name, it gives the pattern that Snakemake fills in.
"""

from dataclasses import dataclass

from pipeline_lib.evaluation.settings import MEAN


@dataclass(frozen=True)
class Paths:
    """Paths below the `results` and `data` folders of a configuration."""

    results: str = "results"
    data: str = "data"
    folders: bool = False
    """Name the folder of a stage instead of the file that declares it complete: an object store keeps only what is
    named, where a file system keeps the rest of the folder, too."""

    def _declared(self, file: str) -> str:
        return file.rpartition("/")[0] if self.folders else file

    def simulation(self, simulation: str) -> str:
        """A simulated session, in the layout of a real source.

        Not below `data`, either (see `fetched`): that of another project may have other settings by the same name.
        """
        return self._declared(f"{self.results}/simulated/{simulation}/simulation.json")

    def fetched(self, folder: str) -> str:
        """That a remote session is here with all that these results are made from; `folder` is its own, below `data`.

        Not a file of `data`, which other projects may share: each reads files of its own there, and Snakemake removes
        what it declares before a job, and where that fails.
        """
        return f"{self.data}/{folder}" if self.folders else f"{self.results}/fetched/{folder}.done"

    def recording(self, session: str) -> str:
        """The tables of a session."""
        return self._declared(f"{self.results}/recordings/{session}/recording.json")

    def trains(self, session: str) -> str:
        """The spike-train store of a session."""
        return self._declared(f"{self.results}/trains/{session}/manifest.json")

    def split(self, cohort: str) -> str:
        """The samples of a cohort and the part each belongs to."""
        return f"{self.results}/splits/{cohort}.parquet"

    def fit(self, cohort: str, model: str, seed: int | str) -> str:
        """Weights, history and predictions of a fit; of the seed "mean" the predictions alone."""
        return self._declared(f"{self.results}/fits/{cohort}/{model}/{_of_seed(seed)}/manifest.json")

    def predictions(self, cohort: str, model: str, seed: int | str) -> str:
        """What a fit predicts of its training part, for readouts."""
        return self._declared(f"{self.results}/predictions/{cohort}/{model}/{_of_seed(seed)}/manifest.json")

    def trial(self, search: str, cohort: str, generation: str, member: str) -> str:
        """One trial of a search; generation and member have two digits."""
        return self._declared(
            f"{self.results}/searches/{search}/{cohort}/generation{generation}/member{member}/score.json"
        )

    def search(self, search: str, cohort: str) -> str:
        """The table of a search, beside its best settings."""
        return f"{self.results}/searches/{search}/{cohort}/trials.csv"

    def scores(self, cohort: str) -> str:
        """The metrics of all fits of a cohort."""
        return f"{self.results}/scores/{cohort}/metrics.parquet"

    def scores_of_fit(self, cohort: str, model: str, seed: int | str) -> str:
        """The metrics of one fit, for who asks for that cell alone."""
        return f"{self.results}/scores/{cohort}/{model}/{_of_seed(seed)}/metrics.parquet"

    @property
    def metrics(self) -> str:
        """The metrics of all fits."""
        return f"{self.results}/metrics.parquet"

    def figure(self, name: str, of: str = "") -> str:
        """A figure, without its ending; `of` is the session or cohort it shows."""
        return f"{self.results}/figures/{of}/{name}" if of else f"{self.results}/figures/{name}"

    @property
    def report(self) -> str:
        """The HTML report."""
        return f"{self.results}/report.html"

    @property
    def unfinished(self) -> tuple[str, str]:
        """Metrics and report of a run that failed: other files than the whole ones, which are still to be made."""
        return f"{self.results}/metrics_unfinished.parquet", f"{self.results}/report_unfinished.html"

    def log(self, *parts: str) -> str:
        """The log of a job."""
        return "/".join((self.results, "logs", *parts)) + ".log"

    def fit_logs(self, cohort: str, model: str, seed: int | str) -> list[str]:
        """The logs that may tell of a fit: its own, and those of the jobs that make the fits of several seeds."""
        if seed == MEAN:
            return [self.log("average", cohort, model, MEAN)]
        return [self.log("fit", cohort, model, job) for job in (f"seed{seed}", "copies", "ensemble")]

    def benchmark(self, *parts: str) -> str:
        """Time and memory of a job, as Snakemake measures them."""
        return "/".join((self.results, "benchmarks", *parts)) + ".tsv"


def _of_seed(seed: int | str) -> str:
    return MEAN if seed == MEAN else f"seed{seed}"
