"""A `document.Document` as Markdown, with its pictures as files beside it."""

import functools
import re
from html import escape
from urllib.parse import quote

from ppkd.reporting import document
from ppkd.terminal.text import printable

# Where these stand, Markdown or HTML begins.
_ACTING = re.compile(r"[\\`*\[\]|~#!]")


def text_of(text):
    """Text for Markdown, in one line: what stands between backticks becomes code, nothing else acts."""
    parts = re.split(r"`([^`]+)`", printable(text))
    return "".join(_code(part) if index % 2 else _plain(part) for index, part in enumerate(parts))


def _plain(text):
    return _ACTING.sub(lambda found: f"\\{found[0]}", escape(text, quote=False))


def _code(text):
    """As HTML, in which characters can be escaped, if there is one for which Markdown's own code has no way."""
    if re.search(r"[<>&|\[\]\\]", text):
        return f"<code>{_plain(text)}</code>"
    return f"`{text}`"


def render_markdown(page, folder):
    """The text of the file, and the pictures that it shows.

    Args:
        page: `document.Document`.
        folder: of the pictures, relative to the file.

    Returns:
        ``(text, {file name: bytes})``.
    """
    files = {}
    parts = [f"# {text_of(page.title)}", f"**{text_of(page.summary)}**"]
    parts += [_table(["", ""], [[what, value] for value, what in page.facts]), *map(text_of, page.remarks)]
    for section in page.sections:
        parts += [f"## {text_of(section.title)}", text_of(section.lead)]
        for index, block in enumerate(section.blocks):
            parts.append(_block(block, f"{section.anchor}-{index + 1}", folder, files))
    return "\n\n".join([*parts, f"---\n\n{text_of(page.footer)}"]) + "\n", files


def _table(head, rows, plain=False, strong=()):
    clean = [[text_of(cell) for cell in row] for row in (head, *rows)]
    clean = [[f"**{cell}**" for cell in row] if i - 1 in strong else row for i, row in enumerate(clean)]
    rules = ["---"] + ["---" if plain else "---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (clean[0], rules, *clean[1:]))


@functools.singledispatch
def _block(block, name, folder, files):
    raise TypeError(f"no block of a report: {block!r}")


@_block.register
def _(block: document.Text, name, folder, files):
    return text_of(block.text)


@_block.register
def _(block: document.Table, name, folder, files):
    table = _table(block.head, block.rows, block.plain, block.strong)
    return f"{text_of(block.caption)}\n\n{table}" if block.caption else table


@_block.register
def _(block: document.Gallery, name, folder, files):
    lines = [f"### {text_of(block.title)}"] if block.title else []
    for index, image in enumerate(block.images):
        file = f"{name}-{index + 1}.{image.kind}"
        files[file] = image.data
        caption = f"\n\n{text_of(image.caption)}" if image.caption else ""
        lines.append(f"![{text_of(image.alt)}]({quote(folder)}/{file})" + caption)
    return "\n\n".join(lines)


@_block.register
def _(block: document.Legend, name, folder, files):
    return "\n".join(f"- {text_of(kind)}: {text_of(text)}" for kind, text in block.entries)


@_block.register
def _(block: document.Missing, name, folder, files):
    return f"> {text_of(block.what)}" + (f"\n>\n> To have it: {text_of(f'`{block.command}`')}" if block.command else "")


@_block.register
def _(block: document.Code, name, folder, files):
    # Not fenced: a text can hold any fence, and what shows Markdown may show HTML in it.
    text = escape(printable(block.text.rstrip(), lines=True))
    return f"<details><summary>{escape(printable(block.title))}</summary>\n\n<pre>{text}</pre>\n\n</details>"
