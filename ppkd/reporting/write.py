"""Makes the page and writes it."""

import os
import re
import time

import ppkd
from ppkd.errors import UserError
from ppkd.files.write import filling, make_own_folder, replacing, write_bytes, write_text
from ppkd.reporting import accuracy, cost, curves, examples, learning, maps, provenance, similarity, strengths
from ppkd.reporting.document import Document, Missing, Section
from ppkd.reporting.html import render_html
from ppkd.reporting.markdown import render_markdown
from ppkd.reporting.material import gather
from ppkd.reporting.summary import outcome
from ppkd.terminal.log import duration, hushed, logger

# In the order of the page.
_SECTIONS = (accuracy, curves, learning, strengths, examples, maps, similarity, cost, provenance)
_HTML = "report.html"
# As `render_markdown` names them.
_PICTURE = re.compile(r"[a-z0-9-]+-[0-9]+-[0-9]+\.(svg|png|jpeg)")


def write_report(runs, output, images=None):
    """Write the page about runs.

    Args:
        runs: list of `runs.Run`.
        output: a folder, or a file that ends in ``.html``; Markdown and its pictures go beside the file.
        images: look at the first so many validation images only; None for all.

    Returns:
        Paths of the HTML and the Markdown file.

    Raises:
        UserError: `output` is not writable; as `material.gather`.
    """
    begin = time.time()
    html = output if output.endswith(".html") else os.path.join(output, _HTML)
    _check(html)
    with hushed():
        page = _page(gather(runs, images))
    stem = os.path.splitext(html)[0]
    folder = f"{stem}_pictures"
    text, files = render_markdown(page, os.path.basename(folder))
    make_own_folder(folder)
    try:
        with replacing(html) as page_file, replacing(f"{stem}.md") as text_file, filling(folder) as pictures:
            for path, content in ((page_file, render_html(page)), (text_file, text)):
                write_text(path, content)
            for name, data in files.items():
                write_bytes(os.path.join(pictures, name), data)
        _remove_former(folder, files)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error}") from error
    logger().info("report done in %s", duration(time.time() - begin))
    return html, f"{stem}.md"


def _remove_former(folder, files):
    """Remove pictures of an earlier report, which are not this one's; what else lies there is somebody's."""
    for entry in os.scandir(folder):
        if _PICTURE.fullmatch(entry.name) and entry.name not in files and entry.is_file(follow_symlinks=False):
            os.remove(entry.path)


def _page(material):
    sections = []
    for number, part in enumerate(_SECTIONS, 1):
        logger().info("report: %d of %d, %s", number, len(_SECTIONS), part.__name__.rpartition(".")[2])
        try:
            sections.append(part.section(material))
        except UserError as error:
            title = getattr(part, "TITLE", part.__name__.rpartition(".")[2].capitalize())
            logger().warning("%s: %s", title, error)
            sections.append(Section(title, "", [Missing(str(error))]))
    summary, facts, remarks = outcome(material)
    names = [run.label for run in material.runs]
    title = "Distillation report: " + (", ".join(names) if len(names) < 4 else f"{len(names)} runs")
    footer = f"Made by ppkd {ppkd.__version__} on {time.strftime('%Y-%m-%d %H:%M')}. This page loads nothing."
    return Document(title, summary, remarks, facts, sections, footer)


def _check(html):
    folder = os.path.dirname(os.path.abspath(html))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output: {folder} cannot be made: {error}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"--output: {folder} is not writable")
