"""The report: one file, valid, small, complete, honest about what is missing, the same every time."""

import base64
import io
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from PIL import Image as Pillow

from pipeline_lib.__main__ import main
from pipeline_lib.errors import InputError
from pipeline_lib.figures import FIGURES
from pipeline_lib.figures.score_table import primary_rows
from pipeline_lib.figures.subjects import FigureFiles
from pipeline_lib.paths import Paths
from pipeline_lib.plan import resolve
from pipeline_lib.report import PAGE_BYTES, build_report, formats, images
from pipeline_lib.report.contents import collect
from pipeline_lib.report.failures import find_failures
from pipeline_lib.trains.splits import Split
from tests.report.conftest import DRAWN, Folder

SCOPES = ("all", "session", "cohort")
EMPTY = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Elements of a page, with a check that every one is closed, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> inside <{self.open[-1:]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="session")
def html(folder: Folder) -> str:
    build_report(folder.results, folder.results / "report.html", folder.config)
    return (folder.results / "report.html").read_text()


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    return Page(html)


def test_page_is_whole_valid_and_small(html: str, page: Page) -> None:
    assert len(html.encode()) < PAGE_BYTES
    assert html.startswith("<!doctype html>")
    tags = Counter(tag for tag, _ in page.elements)
    assert tags["title"] == tags["h1"] == tags["main"] == 1
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(ids.values()) == {1}, "ids are unique"


def test_page_needs_nothing_from_outside(html: str, page: Page) -> None:
    assert not re.search(r"(?:src|href|url|import)\W{1,3}(?:https?:)?//", html)
    assert all(image["src"].startswith("data:image/") for image in page.of("img"))
    assert "default-src 'none'" in html, "the browser is told so too"
    assert not [script for script in page.of("script") if "src" in script]


def test_links_lead_somewhere(folder: Folder, page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [link["href"] for link in page.of("a")]
    assert len(links) > 20
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids
        else:
            assert (folder.results / unquote(link)).is_file(), link


def test_images_are_described_and_sized(page: Page) -> None:
    everywhere, of_session, of_cohort = (sum(FIGURES[name].scope == scope for name in DRAWN) for scope in SCOPES)
    drawn = everywhere + 2 * (of_session + of_cohort) - 1  # the continuous windows of one follow no trials
    assert len(page.of("img")) == drawn, "a figure with nothing to draw has no image"
    for image in page.of("img"):
        assert len(image["alt"]) > 40 and int(image["width"]) > 300
        data = base64.b64decode(image["src"].partition(",")[2])
        with Pillow.open(io.BytesIO(data)) as picture:
            assert picture.width / picture.height == pytest.approx(int(image["width"]) / int(image["height"]), rel=0.01)
    text = "".join(page.text)
    assert "The test windows of other_session follow no trials" in text


def test_scores_are_those_of_the_metrics_table(folder: Folder, page: Page) -> None:
    metrics = pd.read_parquet(folder.results / "metrics.parquet")
    metrics = metrics[(metrics["metric"] == "bits_per_spike") & (metrics["aggregation"] == "pooled")]
    metrics = metrics[metrics["null"] == "evaluated mean"]
    expected = metrics.groupby(["session", "model", "units"])["value"].mean()
    cells = [float(cell["data-value"]) for cell in page.of("td") if "score" in (cell.get("class") or "")]
    assert sorted(cells) == pytest.approx(sorted(expected))
    best = [float(cell["data-value"]) for cell in page.of("td") if "score best" in (cell.get("class") or "")]
    of_heldout = expected[expected.index.get_level_values("units") == "heldout"]
    assert sorted(best) == pytest.approx(sorted(of_heldout.groupby("session").max()))


def test_provenance_names_data_licences_software_and_checksums(page: Page) -> None:
    text = "".join(page.text)
    for wanted in ("CC-BY-4.0", "Smith & Jones", "0" * 64, "torch 2.13", "c0ffee" * 2, "mean_rate", "seeds:"):
        assert wanted in text, wanted


def test_the_page_says_how_windows_were_parted_and_units_held_out(folder: Folder, page: Page) -> None:
    cells = " ".join(cell.get("data-value") or "" for cell in page.of("td"))
    for path in sorted((folder.results / "splits").glob("*.parquet")):
        split = Split.read(path)
        parts = [(split.samples["split"] == part).sum() for part in ("train", "validation", "test")]
        heldout = sum(len(rows) for rows in split.heldout.values())
        numbers = [1, split.bin_size, *parts, heldout, split.forward_bins]
        assert " ".join(map(str, numbers)) in cells


def test_text_from_files_is_escaped(html: str, page: Page) -> None:
    assert "<script>document.title" not in html and "<b>are not finite" not in html
    assert "<script>document.title" in "".join(page.text), "shown as text"


def test_what_failed_is_listed_with_the_end_of_its_log(page: Page) -> None:
    text = " ".join("".join(page.text).split())
    assert "10 of 16 fits finished" in text
    assert "Fit of demo, psth, seed 1: failed" in text
    assert "FitError: rates of unit 3 & <b>are not finite</b>" in text and "line 39" in text
    assert "line 20 " not in text, "only the end"
    assert "Fit of demo, mean_rate, seed 1: not finished: last seen at step 120 of 500" in text
    assert "Fit of other_session, psth, seed 1: not begun" in text
    assert "Fit of demo, glm, seed 1" not in text, "that one is there"


def test_a_page_without_scores_begins_with_what_failed(tmp_path: Path, folder: Folder) -> None:
    """A simulation, and a fit whose seeds were trained together: neither has a log of the result's own name."""
    sheet, results = tmp_path / "sessions.tsv", tmp_path / "results"
    sheet.write_text("session\tsource\tlocation\toptions\na\ttables\tsimulated:made\t\nb\ttables\tsimulated:made\t\n")
    simulations = {"made": {"simulator": "glm", "layout": "tables"}}
    config = folder.config | {"sessions": str(sheet), "simulations": simulations, "models": ["glm"]}
    for log in ("simulate/made", "fit/b/glm/ensemble"):
        (results / "logs" / log).parent.mkdir(parents=True)
        (results / f"logs/{log}.log").write_text(f"line\nerror: of {log}\n")
    build_report(results, results / "report.html", config)
    text = " ".join("".join(Page((results / "report.html").read_text()).text).split())
    told = [text.index(f"error: of {log}") for log in ("simulate/made", "fit/b/glm/ensemble")]
    assert max(told) < text.index("Recording of a: not begun") < text.index("No fit has been scored yet.")
    assert text.count("Simulation of made: failed") == 1, "both sessions are read from it"


@pytest.mark.parametrize("file", ["recording.json", "units.parquet", "split", "run.json", "trains"])
def test_a_damaged_file_is_named_and_the_rest_is_shown(tmp_path: Path, folder: Folder, file: str) -> None:
    results = Path(shutil.copytree(folder.results, tmp_path / "results"))
    found = {
        "split": next((results / "splits").glob("*.parquet")),
        "run.json": next((results / "fits").glob("*/*/seed*/run.json")),
        "trains": results / "trains/demo/manifest.json",
    }
    damaged = found.get(file, results / "recordings/demo" / file)
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_bytes(damaged.read_bytes()[:-9] if damaged.exists() else b"{")
    contents = collect(results, folder.config, results / "metrics.parquet")
    assert [str(damaged) in each.state for each in contents.failures if each.stage == "damaged file"] == [True]
    assert contents.scores.rows and contents.figures
    build_report(results, results / "report.html", folder.config)
    assert f"Damaged file: {damaged}" in " ".join("".join(Page((results / "report.html").read_text()).text).split())


@pytest.mark.parametrize(
    ("said", "state"),
    [("", "not finished"), ("line\nerror: no minimum\n", "failed"), ("Traceback (most recent call last):\n", "failed")],
)
def test_a_fit_that_failed_on_its_way_does_not_go_on(tmp_path: Path, folder: Folder, said: str, state: str) -> None:
    fit, log = tmp_path / "fits/demo/glm/seed0/.resume", tmp_path / "logs/fit/demo/glm/seed0.log"
    fit.mkdir(parents=True)
    (fit / "progress.json").write_text(json.dumps({"step": 12, "total": 50, "loss": 0.3}))
    log.parent.mkdir(parents=True)
    log.write_text(said)
    found = find_failures(FigureFiles(resolve(folder.config), Paths(str(tmp_path))))
    told = next(each.state for each in found if each.of == "demo, glm, seed 0")
    assert told.startswith(f"{state}: last seen at step 12 of 50") and ("goes on" in told) == (state != "failed")


def test_what_is_counted_is_what_is_there_and_a_wrong_configuration_is_told(folder: Folder) -> None:
    metrics = folder.results / "metrics.parquet"
    for session in collect(folder.results, {}, metrics).sessions:
        tables = [folder.results / f"recordings/{session.session}/{t}.parquet" for t in ("units", "spikes", "trials")]
        assert [session.units, session.spikes, session.trials] == [len(pd.read_parquet(table)) for table in tables]
    (failure,) = collect(folder.results, folder.config | {"models": ["gml"]}, metrics).failures
    assert failure.stage == "configuration" and "'gml'" in failure.state


def test_the_log_of_copies_is_that_of_each_copy(tmp_path: Path, folder: Folder) -> None:
    log = tmp_path / "logs/fit/demo/glm/copies.log"
    log.parent.mkdir(parents=True)
    log.write_text("error: no room\n")
    found = find_failures(FigureFiles(resolve(folder.config), Paths(str(tmp_path))))
    assert next(each for each in found if each.of == "demo, glm, seed 0").log == "error: no room"


def test_a_job_that_was_stopped_with_the_run_has_not_failed(tmp_path: Path, folder: Folder) -> None:
    for name, said in (("session", ""), ("cohort", "error: no room\n")):
        log = tmp_path / f"logs/figures/demo/figures_of_{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(said)
    states = {each.of: each.state for each in find_failures(FigureFiles(resolve(folder.config), Paths(str(tmp_path))))}
    assert states["demo, session_overview"].startswith("not finished: it said nothing")
    assert states["demo, psth"] == "failed"


def test_a_fit_of_another_configuration_is_no_fit_of_this_one(folder: Folder, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    build_report(folder.results, page, folder.config, outdated={("demo", "glm", 1)})
    text = " ".join("".join(Page(page.read_text()).text).split())
    assert "9 of 16 fits finished" in text
    assert "Fit of demo, glm, seed 1: made with other settings or data; the next run makes it anew" in text


def test_the_verb_looks_for_fits_of_another_configuration(folder: Folder, tmp_path: Path) -> None:
    """Their manifests say so; where they say nothing, nothing is known."""
    results = tmp_path / "results"
    shutil.copytree(folder.results, results)
    (results / "fits/demo/glm/seed1/manifest.json").write_text(json.dumps({"config": {"strength": 17.0}}))
    config = folder.config | {"results": str(results)}
    out = tmp_path / "report.html"
    assert main(["report", "--results", str(results), "--config", json.dumps(config), "--out", str(out)]) == 0
    text = " ".join("".join(Page(out.read_text()).text).split())
    assert "9 of 16 fits finished" in text and "Fit of demo, glm, seed 1: made with other settings" in text


def test_without_a_configuration_nothing_is_missing(folder: Folder) -> None:
    build_report(folder.results, folder.results / "plain.html")
    text = " ".join("".join(Page((folder.results / "plain.html").read_text()).text).split())
    assert "10 of 10 fits finished" in text and "What failed" not in text


def test_what_a_killed_job_left_of_a_split_is_none(folder: Folder, tmp_path: Path) -> None:
    shutil.copytree(folder.results / "splits", tmp_path / "splits")
    (tmp_path / "splits/.lorenz.node1.77.part.parquet").write_bytes(b"PAR1")
    contents = collect(tmp_path, {}, tmp_path / "none.parquet")
    assert contents.partitions and not contents.failures


def test_what_the_configuration_no_longer_asks_for_is_not_shown(folder: Folder, tmp_path: Path) -> None:
    """The folder holds a session, a model, a seed and figures that were taken out of the configuration."""
    sheet = tmp_path / "sessions.tsv"
    sheet.write_text("session\tsource\tlocation\toptions\ndemo\ttables\tspikes.csv\t\n")
    less = {"sessions": str(sheet), "models": ["mean_rate"], "seeds": [0], "figures": ["raster_rates"]}
    build_report(folder.results, folder.results / "less.html", folder.config | less)
    page = Page((folder.results / "less.html").read_text())
    text = " ".join("".join(page.text).split())
    assert "1 session with" in text and "1 of 1 fits finished" in text
    assert [figure["id"] for figure in page.of("figure")] == ["figure-demo-raster_rates"]


def test_what_nothing_waits_for_is_not_missing(folder: Folder, tmp_path: Path) -> None:
    """Without a model nothing is split, and without a figure of it nothing read; a job that was begun is told."""

    def missing(**change: object) -> set[tuple[str, str]]:
        found = find_failures(FigureFiles(resolve(folder.config | change), Paths(str(tmp_path))))
        return {(each.stage, each.of) for each in found}

    drawn = {(stage, session) for stage in ("recording", "trains") for session in ("demo", "other_session")}
    assert missing(models=[], figures=[]) == set()
    assert missing(models=[], figures=["session_overview"]) == {each for each in drawn if each[0] == "recording"}
    assert missing(models=[], figures=["trains_check"]) == drawn
    one = {"cohorts": {"other_session": {"sessions": ["demo"]}}, "per_session": False, "seeds": [0], "models": ["glm"]}
    of_demo = {each for each in drawn if each[1] == "demo"} | {("split", "other_session"), ("scores", "other_session")}
    assert missing(**one, figures=["raster_rates"]) == of_demo | {("fit", "other_session, glm, seed 0")}
    (tmp_path / "layers.yaml").write_text("{model: ndt, space: {layers: {choice: [1, 2]}}}")
    searched = {"search_directory": str(tmp_path), "searches": {"layers": ["demo"]}}
    of_demo = {(stage, "demo") for stage in ("recording", "trains", "split")}
    assert missing(models=[], figures=[], **searched) == of_demo
    log = tmp_path / "logs/convert/other_session.log"
    log.parent.mkdir(parents=True)
    log.write_text("error: no room\n")
    assert missing(models=[], figures=[]) == {("trains", "other_session")}


def test_the_same_results_give_the_same_bytes(folder: Folder, html: str, tmp_path: Path) -> None:
    build_report(folder.results, folder.results / "again.html", folder.config)
    assert (folder.results / "again.html").read_text() == html


def test_an_empty_results_folder_gives_a_page_and_a_missing_one_an_error(tmp_path: Path) -> None:
    build_report(tmp_path, tmp_path / "report.html")
    text = "".join(Page((tmp_path / "report.html").read_text()).text)
    assert "No fit has been scored yet." in text and "No figure has been drawn yet." in text
    with pytest.raises(InputError, match="no such folder"):
        build_report(tmp_path / "nowhere", tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def test_many_figures_shrink_and_then_are_linked(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, results = 700_000, tmp_path / "results"
    monkeypatch.setattr("pipeline_lib.report.PAGE_BYTES", limit)
    for k in range(24):
        target = results / "figures" / f"session{k:03d}"
        target.mkdir(parents=True)
        for suffix in ("png", "pdf", "csv"):
            shutil.copy(folder.results / f"figures/demo/coupling.{suffix}", target / f"coupling.{suffix}")
    build_report(results, results / "report.html")
    html = (results / "report.html").read_bytes()
    assert 0.6 * limit < len(html) < limit, "the budget is used, and kept"
    page = Page(html.decode())
    text = "".join(page.text)
    assert text.count("not in this page, which stays under 0.7 MB") == 24 - len(page.of("img")) > 0
    assert len([link for link in page.of("a") if (link["href"] or "").endswith(".png")]) == 24


def test_what_a_small_image_saves_goes_to_the_next(folder: Folder) -> None:
    small, large = (folder.results / f"figures/{name}.png" for name in ("training_curves", "demo/coupling"))
    generous = images.encode(large, images.WIDTHS[0])
    budget = len(images.encode(small, images.WIDTHS[0]).uri) + len(generous.uri)
    chosen = images.embed([small, large], budget)
    assert chosen[large] == generous
    assert sum(len(image.uri) for image in images.embed([large, small], budget // 2).values()) <= budget // 2
    assert generous.width == round(178 / 25.4 * 96), "as wide as two columns, in CSS pixels"


def test_numbers_read_well() -> None:
    assert formats.number(-0.1234) == "\u22120.123" and formats.number(float("nan")) == "–"
    assert formats.number(-0.0001) == "0.000"
    assert formats.count(1234567) == "1\u202f234\u202f567" and formats.count(None) == "–"
    assert [formats.duration(seconds) for seconds in (8.24, 200, 7500)] == ["8.2 s", "3 min 20 s", "2 h 5 min"]


def test_hundreds_of_sessions_fit_into_the_page(many: Folder, tmp_path: Path) -> None:
    build_report(many.results, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert len(html.encode()) < PAGE_BYTES
    page = Page(html)
    text = " ".join("".join(page.text).split())
    assert "250 sessions with" in text and "200 more rows are in metrics.parquet" in text
    assert text.count("Nobody et al.") + text.count("Smith & Jones") == 1, "what to cite is said once"
    standing = html[html.index('id="standing-table"') :].partition("</table>")[0]
    found = [float(value) for value in re.findall(r'data-value="(-?[0-9.e-]+)">[^<]*<small>', standing)]
    metrics = primary_rows(pd.read_parquet(many.results / "metrics.parquet"))
    expected = metrics.groupby(["session", "model", "units"])["value"].mean().groupby(["model", "units"]).mean()
    assert sorted(found) == pytest.approx(sorted(expected))
