"""The documentation is a site that builds without a warning, and every page of it can be reached."""

import re
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the site, and what building it wrote. Dead links and anchors are warnings: see mkdocs.yml."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return folder, done


def pages(nav):
    """The files that a navigation names, in its order."""
    for item in nav:
        for target in item.values():
            yield from [target] if isinstance(target, str) else pages(target)


def test_the_navigation_has_every_page_once():
    named = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(named) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_it_builds_without_a_warning(site):
    folder, done = site
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "index.html").exists() and (folder / "examples" / "my_losses.py").exists()


def test_it_can_be_read_without_a_network(site):
    """Nothing that a page shows comes from elsewhere; its links may lead there."""
    folder, _ = site
    files = list(folder.rglob("*.html"))
    assert len(files) > 10
    for page in files:
        loaded = re.findall(r"<(?:link|script|img)[^>]+(?:href|src)=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
        assert [url for url in loaded if "//" in url] == [], page
