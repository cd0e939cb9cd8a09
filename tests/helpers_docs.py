"""The commands that the documentation shows: found, taken apart as a shell would, handed to the product's parsers."""

import argparse
import contextlib
import functools
import io
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from unittest import mock

from ppkd import cli
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "README_cn.md", *sorted((ROOT / "docs").rglob("*.md"))]
_TOOL = re.compile(r"(?:\$ )?((?:python|ppkd|make|pip|git|mkdocs|bash|cd|export) .+)", re.S)


@dataclass
class Command:
    """A command of a page: the file, the text with its lines joined, and its words, the first one the program."""

    page: str
    text: str
    words: list


class _Made(Exception):
    """Carries a parser out of the script that made it."""


def blocks(text):
    """The code blocks of a page, without their indentation."""
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S)
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    indented = re.findall(r"(?:(?<=\n\n)|\A)(?: {4,}\S.*\n(?:\n(?= {4}))?)+", rest + "\n")
    return [textwrap.dedent(block) for block in (*fenced, *indented)]


def spans(text):
    """What stands in backticks in the text of a page, with line breaks as spaces."""
    prose = re.sub(r"^```.*?^```$|^ {4,}.*$", "", text, flags=re.M | re.S if "```" in text else re.M)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def commands(page):
    """The `Command` of each code block of a page, in order."""
    found = []
    for block in blocks(page.read_text(encoding="utf-8")):
        joined = re.sub(r"\\\n\s*", "", block)
        joined = re.sub(r"\$\([^)]*\)", lambda match: match[0].replace("\n", " "), joined)
        for line in joined.splitlines():
            if match := _TOOL.fullmatch(line.strip()):
                found.append(Command(page.name, match[1], words(match[1])))
    return found


def words(text):
    """A command's words as a shell makes them, without comments."""
    if "$(" in text:
        command = ["bash", "-c", f"printf '%s\\n' {text}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return shlex.split(text, comments=True)


@functools.lru_cache(None)
def parser_of(script):
    """The parser that ``python SCRIPT`` makes, up to which alone the script is run.

    Args:
        script: path below the root, or ``ppkd NAME`` for a subcommand.
    """

    def stop(self, *given, **more):
        raise _Made(self)

    name, *subcommand = script.split()
    path = list(sys.path)
    try:
        with (
            mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
            mock.patch.object(sys, "argv", [name, *subcommand]),
        ):
            if name == "ppkd":
                cli.main()
            else:
                runpy.run_path(str(ROOT / name), run_name="__main__")
    except _Made as made:
        return made.args[0]
    finally:
        sys.path[:] = path
    raise AssertionError(f"{script} has no parser")


def parsed(script, arguments):
    """What the script's own parser makes of its arguments.

    Raises:
        AssertionError: it refuses them.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return parser_of(script).parse_args(arguments)
    except SystemExit:
        raise AssertionError(f"{script} {arguments}: {errors.getvalue()}") from None
