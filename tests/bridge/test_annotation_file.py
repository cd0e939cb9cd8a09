"""Annotation files are read in whatever encoding tools write, and of large ones the categories alone."""

import json

import pytest

from ppkd.bridge import annotation_file
from ppkd.bridge.annotation_file import category_names, read_annotations, read_categories
from ppkd.bridge.own_data import expand_own_data
from ppkd.errors import UserError

CONTENT = {"images": [], "annotations": [], "categories": [{"id": 2, "name": "Größe"}, {"id": "10", "name": "中"}]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_an_encoding(encoding, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(CONTENT, ensure_ascii=False).encode(encoding))
    assert read_annotations(str(path), ("images",)) == CONTENT
    assert category_names(str(path)) == ["Größe", "中"]
    config = {"dataset_dir": str(tmp_path), "train_annotations": "a.json", "num_classes": "auto"}
    expand_own_data(config)
    assert config["num_classes"] == 2, "ids of two types"


def test_text_of_another_encoding_is_told(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(CONTENT, ensure_ascii=False).encode("gb18030"))
    with pytest.raises(UserError, match="a.json: broken JSON: 'utf-8' codec can't decode"):
        read_annotations(str(path), ())


@pytest.mark.parametrize("key", ["annotations", "images", "categories"])
def test_a_list_that_stands_twice_is_refused_and_not_half_forgotten(key, tmp_path):
    path = tmp_path / "a.json"
    whole = json.dumps(CONTENT | {"info": {"about": "images"}})
    path.write_text(f'{whole[:-1]}, "{key}": []}}')
    with pytest.raises(UserError, match=f"a.json: broken JSON: `{key}` stands twice in it"):
        read_annotations(str(path), ())
    if key == "categories":
        with pytest.raises(UserError, match="`categories` stands twice in it"):
            read_categories(str(path))


def test_a_word_of_its_keys_may_stand_anywhere_else(tmp_path):
    path = tmp_path / "a.json"
    content = CONTENT | {"info": {"images": 1, "categories": 2, "note": 'the "annotations": none'}}
    path.write_text(json.dumps(content))
    assert read_annotations(str(path), ()) == content


def test_of_a_large_file_the_categories_alone_are_read(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    monkeypatch.setattr(annotation_file, "read_annotations", lambda *_: pytest.fail("read whole"))
    for indent in (None, 1):
        path.write_text(json.dumps(CONTENT, indent=indent))
        assert [entry["id"] for entry in read_categories(str(path))] == [2, "10"]


def test_categories_of_one_id_are_one_class(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT | {"categories": [{"id": 1, "name": "x"}, {"id": 1, "name": "x"}]}))
    assert category_names(str(path)) == ["x"]


@pytest.mark.parametrize(
    ("content", "told"),
    [("\n<html>Sign in</html>", "HTML"), ("version https://git-lfs.github.com/spec", "git lfs pull")],
)
def test_what_lies_in_an_annotation_files_place_is_told(content, told, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"a.json: broken JSON: it is .*{told}"):
        read_annotations(str(path), ("images",))
