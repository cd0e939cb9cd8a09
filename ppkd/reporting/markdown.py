"""A `document.Document` as Markdown, with its pictures as files beside it."""

import functools

from ppkd.reporting import document


def render_markdown(page, folder):
    """The text of the file, and the pictures that it shows.

    Args:
        page: `document.Document`.
        folder: of the pictures, relative to the file.

    Returns:
        ``(text, {file name: bytes})``.
    """
    files = {}
    parts = [f"# {page.title}", f"**{page.summary}**"]
    parts += [_table(["", ""], [[what, value] for value, what in page.facts]), *page.remarks]
    for section in page.sections:
        parts += [f"## {section.title}", section.lead]
        for index, block in enumerate(section.blocks):
            parts.append(_block(block, f"{section.anchor}-{index + 1}", folder, files))
    return "\n\n".join([*parts, f"---\n\n{page.footer}"]) + "\n", files


def _table(head, rows, plain=False):
    clean = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    rules = ["---"] + ["---" if plain else "---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (clean[0], rules, *clean[1:]))


@functools.singledispatch
def _block(block, name, folder, files):
    raise TypeError(f"no block of a report: {block!r}")


@_block.register
def _(block: document.Text, name, folder, files):
    return block.text


@_block.register
def _(block: document.Table, name, folder, files):
    rows = [[f"**{cell}**" for cell in row] if i in block.strong else row for i, row in enumerate(block.rows)]
    table = _table(block.head, rows, block.plain)
    return f"{block.caption}\n\n{table}" if block.caption else table


@_block.register
def _(block: document.Gallery, name, folder, files):
    lines = [f"### {block.title}"] if block.title else []
    for index, image in enumerate(block.images):
        file = f"{name}-{index + 1}.{image.kind}"
        files[file] = image.data
        alt = image.alt.replace("[", "(").replace("]", ")")
        lines.append(f"![{alt}]({folder}/{file})" + (f"\n\n{image.caption}" if image.caption else ""))
    return "\n\n".join(lines)


@_block.register
def _(block: document.Legend, name, folder, files):
    return "\n".join(f"- {kind}: {text}" for kind, text in block.entries)


@_block.register
def _(block: document.Missing, name, folder, files):
    return f"> {block.what}" + (f"\n>\n> To have it: `{block.command}`" if block.command else "")


@_block.register
def _(block: document.Code, name, folder, files):
    return f"<details><summary>{block.title}</summary>\n\n```yaml\n{block.text.rstrip()}\n```\n\n</details>"
