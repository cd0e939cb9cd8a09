"""A `document.Document` as one HTML file that loads nothing: style and pictures are in it, and there is no script."""

import base64
import functools
import os
import re
from html import escape

from ppkd.reporting import document
from ppkd.terminal.text import printable

_MIME = {"svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg"}
# The browser itself keeps the promise that nothing is loaded.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def plain(text):
    """Text for HTML."""
    return escape(printable(text, lines=True))


def marked(text):
    """Text for HTML; what stands between backticks becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", plain(text))


def render_html(page):
    """The text of the file.

    Args:
        page: `document.Document`.
    """
    with open(os.path.join(os.path.dirname(__file__), "page.css"), encoding="utf-8") as file:
        style = file.read()
    links = "".join(f'<li><a href="#{s.anchor}">{marked(s.title)}</a></li>' for s in page.sections)
    facts = "".join(f"<div><dt>{marked(what)}</dt><dd>{marked(value)}</dd></div>" for value, what in page.facts)
    remarks = "".join(f"<p class=remark>{marked(text)}</p>" for text in page.remarks)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{plain(page.title)}</title><style>{style}</style></head><body>",
        f"<header><p class=kind>ppkd report</p><h1>{marked(page.title)}</h1>"
        f"<p class=summary>{marked(page.summary)}</p>",
        f"<dl class=facts>{facts}</dl>{remarks}</header>",
        f"<nav aria-label=Sections><ol>{links}</ol></nav><main>",
        *(_section(section) for section in page.sections),
        f"</main><footer>{marked(page.footer)}</footer></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _section(section):
    blocks = "\n".join(_block(block) for block in section.blocks)
    title = f'<h2 id="{section.anchor}">{marked(section.title)}</h2>'
    return f"<section>{title}<p class=lead>{marked(section.lead)}</p>\n{blocks}</section>"


@functools.singledispatch
def _block(block):
    raise TypeError(f"no block of a report: {block!r}")


@_block.register
def _(block: document.Text):
    return f"<p>{marked(block.text)}</p>"


@_block.register
def _(block: document.Table):
    head = "".join(f"<th scope=col>{marked(cell)}</th>" for cell in block.head)
    rows = []
    for index, row in enumerate(block.rows):
        cells = "".join(f"<td>{marked(cell)}</td>" for cell in row[1:])
        strong = " class=strong" if index in block.strong else ""
        rows.append(f"<tr{strong}><th scope=row>{marked(row[0])}</th>{cells}</tr>")
    caption = f"<caption>{marked(block.caption)}</caption>" if block.caption else ""
    kind = " class=plain" if block.plain else ""
    # Focusable, so that a wide table can be scrolled by keyboard too.
    return (
        f'<div class=table tabindex=0 role=group aria-label="{plain(block.caption or block.head[0])}">'
        f"<table{kind}>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


@_block.register
def _(block: document.Gallery):
    title = f"<h3>{marked(block.title)}</h3>" if block.title else ""
    figures = "".join(_figure(image) for image in block.images)
    kind = "plots" if all(image.kind == "svg" for image in block.images) else "photos"
    gallery = f'<div class="gallery {kind}" style="--least:{block.least}px">{figures}</div>'
    return f"<div class=group>{title}{gallery}</div>"


def _figure(image):
    width, height = image.size
    source = f"data:{_MIME[image.kind]};base64,{base64.b64encode(image.data).decode()}"
    caption = f"<figcaption>{marked(image.caption)}</figcaption>" if image.caption else ""
    shown = f'<img src="{source}" alt="{plain(image.alt)}" width="{width}" height="{height}">'
    # A click shows it large, without a script: the box is ticked, and the page's style does the rest.
    zoom = f'<label class=zoom><input type=checkbox aria-label="show large">{shown}</label>'
    return f"<figure>{zoom}{caption}</figure>"


@_block.register
def _(block: document.Legend):
    entries = "".join(f'<li><span class="box {kind}"></span>{marked(text)}</li>' for kind, text in block.entries)
    return f"<ul class=legend>{entries}</ul>"


@_block.register
def _(block: document.Missing):
    command = f"<p>To have it: <code>{plain(block.command)}</code></p>" if block.command else ""
    return f"<div class=missing><p>{marked(block.what)}</p>{command}</div>"


@_block.register
def _(block: document.Code):
    return f"<details><summary>{marked(block.title)}</summary><pre>{plain(block.text)}</pre></details>"
