"""The page in a browser: drawn at both widths and in both themes, without a word to anybody."""

import shutil
import subprocess

import pytest

from analysis.page import Grid, Section, page, words
from tests.analysis import made_up

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def test_words_are_escaped_and_code_is_code():
    assert words("a < `--fix b=<c>` d") == (
        "a &lt; <code><span>--fix</span> <span>b=&lt;c&gt;</span></code> d"
    )


def test_a_table_has_its_cells_and_its_caption():
    html = page("t", "s", [Section("k", "K", "Kk", [Grid(("a", "b"), [("1", "`x`")], "why")])])
    assert '<a href="#k">K</a>' in html and "<h2>Kk</h2>" in html
    assert (
        '<th class="word">a</th><th>b</th>' in html
        and '<td class="word">1</td><td><code><span>x</span></code></td>' in html
    )
    assert '<p class="quiet">why</p>' in html


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [500, 1280])  # no window of Chromium is narrower
def test_every_figure_is_drawn_and_nothing_is_wider_than_the_window(tmp_path, width):
    from analysis import load, report

    made_up.study(tmp_path / "s", 40)
    html = report.report(load(tmp_path / "s"))
    # The page looks at itself: it draws all that is shown, and writes down what went wrong.
    probe = """<script>
    const wrong = [];
    addEventListener("error", event => wrong.push(event.message));
    addEventListener("securitypolicyviolation", event => wrong.push(event.blockedURI));
    addEventListener("load", () => {
      const plots = [...document.querySelectorAll(".plot")].filter(plot => plot.offsetParent);
      plots.forEach(plot => draw(plot));
      const drawn = plots.filter(plot => plot.querySelector("svg.main-svg")).length;
      const wide = document.documentElement.scrollWidth > innerWidth;
      const found = { wrong, drawn, of: plots.length, wide, requests:
        performance.getEntriesByType("resource").map(one => one.name) };
      document.title = JSON.stringify(found);
    });
    </script>"""
    (tmp_path / "r.html").write_text(html.replace("<head>", f"<head>{probe}", 1))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               "--enable-unsafe-swiftshader", f"--user-data-dir={tmp_path / 'profile'}",
               f"--window-size={width},900", "--virtual-time-budget=20000"]  # fmt: skip
    ran = subprocess.run(
        [str(CHROMIUM), *options, "--dump-dom", f"file://{tmp_path / 'r.html'}"],
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    said = ran.stdout[ran.stdout.index("<title>") : ran.stdout.index("</title>")]
    assert '"wrong":[]' in said and '"wide":false' in said and '"requests":[]' in said, said
    drawn, of = (int(said.partition(f'"{key}":')[2].partition(",")[0]) for key in ("drawn", "of"))
    assert drawn == of > 10
