"""The page in a real browser: large pictures, narrow screens, paper."""

import io

import numpy as np
import pytest
from PIL import Image as Picture

from ppkd.reporting.document import Code, Document, Gallery, Image, Legend, Missing, Section, Table
from ppkd.reporting.html import render_html
from ppkd.reporting.plots import line, plot
from tests.helpers_browser import LACKING, Browser, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason=LACKING)
LONG = "output/some_long_name_of_a_run_with_all_that_it_is_about/ppyoloe_plus_small_custom_and_more/student"
# Of A4 between margins of 15 mm, in CSS pixels.
PAPER = 680


def photo(width, height):
    buffer = io.BytesIO()
    Picture.effect_noise((width, height), 90).save(buffer, "PNG")
    return Image(buffer.getvalue(), "png", f"noise of {width} x {height}", "plain student: 3 of 8 found",
                 (width // 2, height // 2))  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page with one of everything, wider and longer than a screen."""
    curve = plot(lambda axes: line(axes, range(9), range(9), ("#0072b2", "-", "o"), "a"), "a line that rises")
    names = [f"distilled: run_of_the_{i}th_method" for i in range(7)]
    rows = [[f"class {i}", *(f"{i}{k}.{k}" for k in range(7))] for i in range(9)]
    photos = [photo(500, 300), photo(300, 500), photo(500, 300), photo(500, 300)]
    sections = [
        Section("Accuracy", "AP " * 60, [Table(["class", *names], rows, "AP by class (%)", (8,))]),
        Section("Curves", "", [Gallery([curve] * 3)]),
        Section("Examples", "", [Legend([("truth", "object"), ("found", "correct")]), Gallery(photos, "1", 150)]),
        Section("Recipe", "", [Table(["run", "folder", "weights"], [["1", LONG, LONG]], "Runs", plain=True),
                               Missing(f"{LONG} is not there.", f"ppkd report {LONG}"), Code("recipe", LONG * 4)]),
    ]  # fmt: skip
    facts = [("52.1", "AP, teacher"), ("+3.4", "AP gained by distillation, 95 % interval over images +1.0 to +5.9")]
    page = Document(f"Distillation report: {LONG}", "With distillation the student reaches AP 48.1.", ["Measured."],
                    facts, sections, "footer")  # fmt: skip
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(render_html(page), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser():
    with Browser() as page:
        yield page


WIDE = "[...document.querySelectorAll('.table')].filter(e => e.scrollWidth > e.clientWidth + 1)"
# Whatever reaches beyond the window without standing in something that scrolls.
BEYOND = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.table, pre') && !e.matches('.zoom input')
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className)"""


@pytest.mark.parametrize("width", [390, 1280])
def test_tables_scroll_and_the_page_does_not(width, path, browser):
    browser.open(path, width)
    assert browser.ask("document.documentElement.scrollWidth") <= width and browser.ask(BEYOND) == []
    assert browser.ask(f"{WIDE}.length") == 2, "each inside of its own"
    tops = browser.ask("[...document.querySelectorAll('figure')].map(e => e.getBoundingClientRect().width)")
    assert min(tops) > 120, "pictures are no stripes"


def test_a_table_shows_that_it_goes_on(path, browser):
    """By a shadow at its edge, also across rows that are tinted; the first column stays in sight."""
    browser.open(path, 390)
    edge = browser.ask(
        "(() => { const t = document.querySelector('.table'); t.scrollIntoView();"
        "return t.getBoundingClientRect().right; })()"
    )
    tops = browser.ask("[...document.querySelectorAll('.table')[0].querySelectorAll('tbody tr')]"
                       ".map(r => r.getBoundingClientRect().y + 4)")  # fmt: skip
    assert len(tops) == 9 and max(tops) < 890
    for left, goes_on in ((0, True), (10_000, False)):
        browser.ask(f"document.querySelector('.table').scrollLeft = {left}")
        screen = np.asarray(Picture.open(io.BytesIO(browser.screenshot())).convert("L"))
        seen = [int(screen[int(top), int(edge) - 2]) for top in tops]
        assert all((value < 225) == goes_on for value in seen), (left, seen)
    assert browser.ask("document.querySelector('tbody th').getBoundingClientRect().x") >= 0, "the first column stays"


@pytest.mark.parametrize("width", [390, 1280])
def test_a_picture_opens_large_and_closes(width, path, browser):
    browser.open(path, width)
    box = "(s => { const r = document.querySelector(s).getBoundingClientRect(); return [r.width, r.height]; })"
    for image in (".plots img", ".photos figure:nth-child(2) img"):
        small = browser.ask(f"{box}({image!r})")
        browser.click(image)
        assert browser.ask(f"{box}({image!r})") == pytest.approx([0.96 * width, 0.96 * 900], abs=2)
        on_top = f"document.elementFromPoint(innerWidth / 2, innerHeight / 2) === document.querySelector({image!r})"
        assert browser.ask(on_top), "over everything else"
        browser.click(image)
        assert browser.ask(f"{box}({image!r})") == small
    browser.ask("document.querySelector('.photos input').focus()")
    browser.press(" ", 32)
    assert browser.ask(f"{box}('.photos img')")[0] > 0.9 * width, "by keyboard too"
    browser.press(" ", 32)
    assert browser.ask("document.querySelectorAll('input:checked').length") == 0


def test_beside_a_large_photograph_there_is_no_white(path, browser):
    browser.open(path, 1280, 900)
    browser.click(".photos figure:nth-of-type(2) img")  # a portrait in a wide window
    shown = np.asarray(Picture.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert shown[300:600, 40:200].max() < 130 and shown[300:600, 560:720].std() > 20


def test_on_paper_nothing_is_cut_off(path, browser):
    browser.open(path, PAPER, media="print")
    assert browser.ask(BEYOND.replace("!e.closest('.table, pre') && ", "!e.closest('details, nav') && ")) == []
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.ask("[...document.querySelectorAll('figure img')].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.pdf().startswith(b"%PDF-")


def test_a_picture_that_is_open_is_printed_in_its_place(path, browser):
    browser.open(path, 1280)
    browser.click(".photos img")
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert browser.ask("document.querySelector('.photos img').getBoundingClientRect().width") < 700


def test_the_doubt_stands_beside_the_number(path, browser):
    for width in (390, 1280):
        browser.open(path, width)
        number, doubt = browser.ask(
            "[...document.querySelectorAll('.facts div:last-child > *')].map(e => e.getBoundingClientRect())"
            ".map(r => [r.y, r.right])"
        )  # fmt: skip
        assert abs(number[0] - doubt[0]) < 80 and max(number[1], doubt[1]) <= width


def test_the_page_may_load_nothing_and_runs_nothing(path, browser, tmp_path):
    """What the policy says, the browser does."""
    evil = path.read_text(encoding="utf-8").replace("</main>", "<script>document.title = 'run'</script></main>")
    file = tmp_path / "evil.html"
    file.write_text(evil, encoding="utf-8")
    browser.open(file)
    assert browser.ask("document.title").startswith("Distillation report")
