"""Where a report is written: all of it or none, through no link, and what is somebody's stays."""

import resource

import pytest

from ppkd.errors import UserError
from ppkd.reporting import write
from ppkd.reporting.document import Document, Gallery, Image, Section, Text


@pytest.fixture
def report(monkeypatch, tmp_path):
    """Function that writes a report of so many pictures, of so many bytes, with a text of so many letters."""

    def make(pictures=2, size=100, letters=10):
        images = [Image(b"0" * size, "jpeg", "a picture") for _ in range(pictures)]
        page = Document("t", "s", [], [], [Section("Maps", "x" * letters, [Gallery(images), Text("y")])], "f")
        monkeypatch.setattr(write, "gather", lambda *_: None)
        monkeypatch.setattr(write, "_page", lambda _: page)
        return write.write_report([], str(tmp_path / "rep"))

    return make


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("much", [{"size": 90_000}, {"letters": 90_000}, {"pictures": 3, "size": 90_000}])
def test_a_full_disk_leaves_the_report_before_whole(report, tmp_path, much):
    report()
    before = everything(tmp_path)
    assert len(before) == 4
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot be written") as told:
            report(**much)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(told.value) and everything(tmp_path) == before


def test_pictures_of_the_report_before_go_and_those_of_others_stay(report, tmp_path):
    report(pictures=4)
    folder = tmp_path / "rep" / "report_pictures"
    theirs = {"holiday.png", "maps.svg", "maps-1-1.png.txt"}
    for name in theirs:
        (folder / name).write_bytes(b"mine")
    (folder / "maps-9-9.png").symlink_to("holiday.png")
    report(pictures=1)
    assert {path.name for path in folder.iterdir()} == theirs | {"maps-1-1.jpeg", "maps-9-9.png"}


@pytest.mark.parametrize("name", ["report_pictures", "report.html", "report.md"])
def test_a_link_in_the_place_of_what_it_writes_leads_nowhere(report, tmp_path, name):
    (tmp_path / "rep").mkdir()
    album = tmp_path / "album"
    album.mkdir()
    (album / "maps-1-9.jpeg").write_bytes(b"precious")
    (tmp_path / "rep" / name).symlink_to(album if name == "report_pictures" else album / "maps-1-9.jpeg")
    if name == "report_pictures":
        with pytest.raises(UserError, match="report_pictures: is a link, and links are not followed in writing"):
            report()
    else:
        report()
    assert everything(album) == {"maps-1-9.jpeg": b"precious"}
