"""The report in a real browser: nothing complains, tables sort, figures can be chosen, it fits a phone."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline_lib.figures import FIGURES
from pipeline_lib.report import build_report
from tests.report.conftest import DRAWN, Folder

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]


def browse(page: Path, profile: Path, milliseconds: int = 3000) -> tuple[str, str]:
    """The document after its scripts ran so long, and what the browser had to say."""
    time = f"--virtual-time-budget={milliseconds}"
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", time, "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def evaluate(folder: Folder, tmp_path: Path, script: str) -> dict:
    """Build the page, run `script` in it, and return what it leaves in `result`."""
    page = tmp_path / "page.html"
    build_report(folder.results, page, folder.config)
    code = f"<script>const result = {{}};\n{script}\ndocument.title = JSON.stringify(result);</script></body>"
    page.write_text(page.read_text().replace("</body>", code))
    document, complaints = browse(page, tmp_path / "profile")
    assert not re.search(r"CONSOLE.*(error|refused|violat)", complaints, re.IGNORECASE), complaints
    title = re.search(r"<title>(.*?)</title>", document, re.DOTALL)
    assert title
    return json.loads(html.unescape(title.group(1)))


def test_tables_sort_and_figures_can_be_chosen(folder: Folder, tmp_path: Path) -> None:
    script = """
    const table = document.querySelector("#score-table"), heads = [...table.tHead.rows[0].cells];
    const column = name => heads.findIndex(head => head.textContent.includes(name));
    const cells = index => [...table.tBodies[0].rows].map(row => row.cells[index]);
    const values = index => cells(index).map(cell => cell.dataset.value ?? cell.textContent.trim());
    const press = index => heads[index].querySelector("button").click();
    const score = column("held-in"), model = column("Model");
    press(score); result.down = values(score).map(Number); result.sorted = heads[score].getAttribute("aria-sort");
    press(score); result.up = values(score).map(Number);
    press(model); result.models = values(model); result.cleared = heads[score].hasAttribute("aria-sort");
    const shown = () => [...document.querySelectorAll("figure")].filter(each => each.offsetParent).map(each => each.id);
    result.all = shown().length;
    const choose = (id, value) => {
      const list = document.querySelector(id); list.value = value;
      list.dispatchEvent(new Event("change", { bubbles: true }));
    };
    choose("#choose-subject", "demo"); result.subject = shown();
    choose("#choose-kind", "coupling"); result.both = shown();
    choose("#choose-subject", ""); result.kind = shown();
    cells(score)[3].dataset.value = "nan"; cells(score)[5].dataset.value = "";
    press(score); result.last = values(score).slice(-2);
    press(score); result.last.push(...values(score).slice(-2));
    """
    result = evaluate(folder, tmp_path, script)
    assert result["down"] == sorted(result["down"], reverse=True) and len(set(result["down"])) == 8
    assert result["up"] == result["down"][::-1] and result["sorted"] == "descending"
    assert result["models"] == sorted(result["models"], key=str.lower) and not result["cleared"]
    assert sorted(result["last"]) == ["", "", "nan", "nan"], "empty cells are last, whichever way"
    own = sum(FIGURES[name].scope != "all" for name in DRAWN)
    assert result["all"] == len(DRAWN) - own + 2 * own
    assert len(result["subject"]) == own and all("demo" in name for name in result["subject"])
    assert result["both"] == ["figure-demo-coupling"]
    assert result["kind"] == ["figure-demo-coupling", "figure-other_session-coupling"]


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_the_screen(folder: Folder, tmp_path: Path, width: int) -> None:
    page = tmp_path / "page.html"
    build_report(folder.results, page, folder.config)
    inner = html.escape(page.read_text(), quote=True)
    script = """addEventListener("load", () => {
      const root = document.querySelector("iframe").contentDocument, text = root.querySelector("p.lead");
      const size = parseFloat(root.defaultView.getComputedStyle(text).fontSize);
      const buttons = [...root.querySelectorAll("th button")].filter(each => each.offsetParent);
      const low = Math.min(...buttons.map(each => each.offsetHeight));
      document.title = JSON.stringify({ scroll: root.documentElement.scrollWidth, size, low });
    });"""
    outer = tmp_path / "outer.html"
    frame = f'<iframe width="{width}" height="800" style="border:0" srcdoc="{inner}"></iframe>'
    outer.write_text(f"<!doctype html><title>-</title><body style='margin:0'>{frame}<script>{script}</script></body>")
    document, _ = browse(outer, tmp_path / "profile")
    result = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", document).group(1)))
    assert result["scroll"] <= width, "tables and figures scroll inside their own boxes"
    assert result["size"] >= 16 and result["low"] >= 40, "letters to read and heads to press with a thumb"


def test_sessions_and_models_can_be_switched_off(folder: Folder, tmp_path: Path) -> None:
    script = """
    const shown = id => [...document.querySelector(id).tBodies[0].rows].filter(row => row.offsetParent);
    const names = () => shown("#score-table").map(row => row.querySelector("th").textContent);
    result.before = names().length;
    const box = document.querySelector("#choose-models input[value=glm]");
    box.click(); result.without = names(); result.standing = shown("#standing-table").length;
    const rules = [...document.styleSheets].flatMap(sheet => [...sheet.cssRules]);
    const print = rules.filter(rule => rule.media?.mediaText === "print").flatMap(rule => [...rule.cssRules]);
    const back = print.filter(rule => rule.style.display === "table-row").map(rule => rule.selectorText);
    const rows = [...document.querySelector("#score-table").tBodies[0].rows];
    result.printed = rows.filter(row => !row.hidden || back.some(each => row.matches(each))).length;
    for (const row of rows) { delete row.dataset.out; row.hidden = true; }
    result.pages = rows.filter(row => back.some(each => row.matches(each))).length;
    result.dark = rules.filter(rule => rule.media?.mediaText.includes("dark")).map(rule => rule.media.mediaText);
    box.click(); result.again = names().length;
    const list = document.querySelector("#choose-subject"); list.value = "other_session";
    list.dispatchEvent(new Event("change", { bubbles: true }));
    result.sessions = shown("#score-table").map(row => row.cells[0].textContent);
    result.pagers = [...document.querySelectorAll(".pager")].filter(each => each.offsetParent).length;
    """
    result = evaluate(folder, tmp_path, script)
    assert result["before"] == result["again"] == 8
    assert "GLM" not in result["without"] and len(result["without"]) == 6 and result["standing"] == 3
    assert result["printed"] == 6 and result["pages"] == 8, "on paper all pages of a table, but nothing switched off"
    assert result["dark"] and all("screen" in media for media in result["dark"]), "paper is white"
    assert result["sessions"] == ["other_session"] * 4 and result["pagers"] == 0


def test_hundreds_of_sessions_are_shown_a_page_at_a_time(many: Folder, tmp_path: Path) -> None:
    script = """
    const rows = () => [...document.querySelector("#score-table").tBodies[0].rows].filter(row => row.offsetParent);
    const bar = document.querySelector("#score-table").closest(".scroll").nextElementSibling;
    const [back, next] = bar.querySelectorAll("button");
    result.first = rows().length; result.note = bar.textContent; result.back = back.disabled;
    const sessions = () => rows().map(row => row.cells[0].textContent);
    const one = sessions(); next.click(); result.turned = sessions().filter(name => one.includes(name)).length;
    const heads = [...document.querySelector("#score-table").tHead.rows[0].cells];
    heads.find(head => head.textContent.includes("held-in")).querySelector("button").click();
    const values = [...document.querySelectorAll("#score-table td.score")].map(cell => Number(cell.dataset.value));
    result.best = Math.max(...values);
    back.click(); result.top = Number(rows()[0].querySelector("td.score").dataset.value);
    const list = document.querySelector("#choose-subject"); list.value = "session150";
    list.dispatchEvent(new Event("change", { bubbles: true }));
    result.chosen = sessions(); result.hidden = bar.hidden;
    """
    result = evaluate(many, tmp_path, script)
    assert result["first"] == 40 and "1 to 40 of 800" in result["note"] and result["back"]
    assert result["turned"] == 0 and result["top"] == result["best"]
    assert result["chosen"] == ["session150"] * 4 and result["hidden"]
