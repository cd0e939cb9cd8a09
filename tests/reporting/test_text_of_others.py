"""Names out of configs, annotations and folders on a page: shown as they are, and nothing of them acts."""

import re

import pytest

from ppkd.reporting.document import Code, Document, Gallery, Image, Legend, Missing, Section, Table, Text
from ppkd.reporting.html import render_html
from ppkd.reporting.markdown import render_markdown, text_of
from tests.helpers_html import Page

EVIL = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "``x`<iframe src=//x>`` `y",
    "a\n\n<script>alert(3)</script>\n\n# a heading",
    "</pre></details><script>alert(4)</script>",
    "```\n<script>alert(5)</script>\n```",
    "[a](javascript:alert(6)) ![b](http://x/y.png) [c]: http://x",
    "| cell | other |\n|---|---|",
    "\x1b[2J\u202eevil",
    "<!-- hidden",
    "`[a](javascript:alert(7))`",
    "a `b<script>c` d",
)


def page_of(evil):
    image = Image(b"x", "png", evil, evil, (9, 9))
    blocks = [Text(evil), Table([evil, evil], [[evil, evil]], evil, (0,)), Gallery([image], evil), Code(evil, evil)]
    blocks += [Legend([("object", evil)]), Missing(evil, evil)]
    return Document(evil, evil, [evil], [(evil, evil)], [Section(evil, evil, blocks)], evil)


@pytest.mark.parametrize("evil", EVIL)
def test_nothing_of_others_acts_in_markdown(evil):
    text, _ = render_markdown(page_of(evil), "pictures")
    ours = {"<details>", "</details>", "<summary>", "</summary>", "<pre>", "</pre>", "<code>", "</code>"}
    assert set(re.findall(r"<[^>\s]*>?", text)) <= ours
    assert text.count("<pre>") == text.count("</pre>") == 1
    text = re.sub(r"(?s)<(pre|summary)>.*?</\1>", "", text)  # HTML, in which Markdown has no meaning
    links = re.findall(r"(?<!\\)!?\[((?:[^\[\]\\]|\\.)*)\]\(", text)
    assert len(links) == 1  # of the picture
    assert len(re.findall(r"(?m)^#", text)) == 3 and "\x1b" not in text and "\u202e" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3} and len(rows) == 6


@pytest.mark.parametrize("evil", EVIL)
def test_nothing_of_others_acts_in_html(evil):
    text = render_html(page_of(evil))
    page = Page(text)
    plain = {tag for tag, _ in Page(render_html(page_of("plain"))).tags}
    assert {tag for tag, _ in page.tags} <= plain | {"code"}
    assert not {key for _, attributes in page.tags for key in attributes if key.startswith("on")}
    assert "\x1b" not in text and "\u202e" not in text


def test_what_is_meant_as_code_is_code():
    assert text_of("see `-o seed=1` there") == "see `-o seed=1` there"
    assert text_of("see `neck[*]` | <b>") == r"see <code>neck\[\*\]</code> \| &lt;b&gt;"
    assert text_of("a ` b") == r"a \` b"
