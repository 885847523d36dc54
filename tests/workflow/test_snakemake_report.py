"""Snakemake's own report in a real browser: every figure is under its title, by what it shows, with its caption."""

import html
import json
import re
import zipfile
from pathlib import Path

import pytest

from pipeline_lib.figures import FIGURES
from tests.report.test_report_in_browser import BROWSER, browse
from tests.workflow.project import Project

CLICK = """
const wait = () => new Promise(done => setTimeout(done, 150)), found = {};
const all = tags => [...document.querySelectorAll(tags)];
const named = (tags, name) => all(tags).filter(each => each.textContent.trim() === name).pop();
(async () => {
  await wait();
  for (const category of CATEGORIES) {
    named("li, a, div, span", category).click(); await wait();
    const rows = all("tbody tr"), [view, about] = rows[0].querySelectorAll("a");
    found[category] = { of: rows.map(row => row.textContent.trim()) };
    view.click(); await wait();
    found[category].pictures = all("img").filter(each => each.naturalWidth > 500).map(each => each.getAttribute("src"));
    about.click(); await wait();
    found[category].text = document.body.innerText;
    named("a", "Results").click(); await wait();
  }
  document.title = JSON.stringify(found);
})();
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_figures_are_found_by_category_and_label(finished: Project, tmp_path: Path) -> None:
    result = finished.snakemake("--report", str(tmp_path / "report.zip"))
    assert result.returncode == 0, result.stderr[-3000:]
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        archive.extractall(tmp_path)
    (page,) = tmp_path.rglob("report.html")
    drawn = finished.folder / "results/figures"
    wanted = {FIGURES[png.stem].title: png.stem for png in drawn.rglob("*.png")}
    assert len(wanted) > 10
    code = CLICK.replace("CATEGORIES", json.dumps(sorted(wanted)))
    head, _, tail = page.read_text().rpartition("</body>")
    page.write_text(f"{head}<script>{code}</script></body>{tail}")
    document, _ = browse(page, tmp_path / "profile", milliseconds=20_000)
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", document, re.DOTALL).group(1)))
    assert set(found) == set(wanted)
    for title, name in wanted.items():
        spec, shown = FIGURES[name], found[title]
        assert shown["of"] == (["all sessions"] if spec.scope == "all" else ["pair"]), title
        assert [Path(picture).stem for picture in shown["pictures"]] == [name]
        assert spec.caption[:60] in " ".join(shown["text"].split()), title
