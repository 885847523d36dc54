"""One self-contained HTML page of everything in a results folder: scores, figures, failures, provenance."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline_lib.files import atomic_file

PAGE_BYTES = 5_000_000
"""The page stays below this, so that it can be mailed and opened on a phone."""
SPARE_BYTES = 150_000
"""Room for what is not known while images are sized: the tags around them."""


def build_report(
    results_dir: Path | str,
    out_html: Path | str,
    config: dict[str, Any] | None = None,
    metrics: Path | str | None = None,
    outdated: Collection[tuple[str, str, int | str]] = (),
) -> None:
    """Write the report of `results_dir`, whole or not at all, under `PAGE_BYTES`.

    The page needs nothing outside itself (images are inside, no font or script is fetched); only its links to the PDF
    and CSV of each figure lead to the results folder. The same results give the same bytes.

    Parameters
    ----------
    results_dir : the folder of `pipeline_lib.paths.Paths`; what is missing in it is left out or reported as failed.
    out_html : the file to write.
    config : the configuration that made the results: which fits were expected, and shown under "Provenance".
    metrics : the table of scores; None: `metrics.parquet` of the results.
    outdated : fits (cohort, model, seed) that are there but of another configuration: they do not count as made.

    Raises
    ------
    InputError : there is no such folder.

    Examples
    --------
    >>> Path("results").mkdir()
    >>> build_report("results", "report.html")  # of a run that has made nothing yet
    >>> "Trainyard" in Path("report.html").read_text()
    True
    """
    # Not above: the workflow imports this package for the pages beside it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from pipeline_lib.report import contents, formats
    from pipeline_lib.report.images import embed

    results, page = Path(results_dir), Path(out_html)
    collected = contents.collect(results, config or {}, Path(metrics or results / "metrics.parquet"), outdated)
    environment = Environment(
        loader=PackageLoader("pipeline_lib.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(formats.FILTERS)
    template = environment.get_template("page.html")
    said = {"contents": collected, "folder": page.resolve().parent, "limits": contents, "megabytes": PAGE_BYTES / 1e6}
    text_bytes = len(template.render(**said, images={}).encode())
    drawn = [figure.png for figure in collected.figures if not figure.nothing]
    images = embed(drawn, PAGE_BYTES - SPARE_BYTES - text_bytes)
    with atomic_file(page) as part:
        part.write_text(template.render(**said, images=images), encoding="utf-8")
