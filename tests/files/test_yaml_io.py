"""Reading YAML: PaddleDetection's tags without running anything, and messages that name file and line."""

import re

import pytest

from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged, clone, dump, merge, parse_value, read_with_bases, read_yaml
from tests import helpers_tools


@pytest.fixture
def write(tmp_path):
    """Function that writes a file below the test's folder and returns its path."""
    return lambda name, text: helpers_tools.write(tmp_path / name, text)


@pytest.mark.parametrize("text", ["null", "None", "~", " None ", ""])
def test_null_None_and_tilde_mean_none(text):
    assert parse_value(text) is None


@pytest.mark.parametrize(
    "text, value",
    [("1e-3", 1e-3), ("-2E5", -2e5), ("1.5e3", 1.5e3), ("5.e-1", 0.5), ("0.01", 0.01), ("12", 12), ("true", True),
     ("[1, 2e-1]", [1, 0.2]), ("{a: 1e-4}", {"a": 1e-4}), ("1e", "1e"), ("e5", "e5"), ("'1e-3'", "1e-3")],
)  # fmt: skip
def test_numbers_are_numbers(text, value):
    found = parse_value(text)
    assert found == value and type(found) is type(value)


def test_a_tag_becomes_a_tagged_mapping_that_knows_its_place(write):
    path = write("a.yml", "epoch: 1\nTrainDataset:\n  !COCODataSet\n    image_dir: train\n    fields: [a, b]\n")
    section = read_yaml(path)["TrainDataset"]
    assert isinstance(section, Tagged) and section.tag == "COCODataSet"
    assert section == {"image_dir": "train", "fields": ["a", "b"]}
    assert section.where == f"{path}:3"


def test_a_tag_on_a_list_gives_positional_arguments():
    made = parse_value("!PiecewiseDecay [0.1, [8, 11]]")
    assert (made.tag, made.args, dict(made)) == ("PiecewiseDecay", [0.1, [8, 11]], {})


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.system ['touch {}']", "a: !!python/name:os.system", "!!python/tuple [1]: 2"]
)
def test_python_tags_are_refused_with_their_line_and_run_nothing(write, tmp_path, text):
    canary = tmp_path / "canary"
    path = write("a.yml", "epoch: 1\n" + text.format(canary))
    with pytest.raises(UserError, match=r"a\.yml:2: the tag !!python/.* is refused"):
        read_yaml(path)
    assert not canary.exists()


def test_merge_keys_and_anchors_work_as_in_any_yaml(write):
    path = write("a.yml", "base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\nsame: *b\n")
    content = read_yaml(path)
    assert content["more"] == {"x": 1, "y": 3}
    assert content["same"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 3\n", "t: {x: 1,\n  y: 2,\n a: 1, a: 2}", "t: !T {q: 1,\nw: 1,\na: 1, a: 2}"]
)
def test_a_key_that_stands_twice_is_refused_with_its_line(write, text):
    with pytest.raises(UserError, match=r"twice\.yml:3: the key 'a' stands twice"):
        read_yaml(write("twice.yml", text))


def test_broken_yaml_names_file_line_and_reason(write):
    path = write("broken.yml", "epoch: 1\nmilestones: [8, 11\nname: x\n")
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(caught.value) == (
        f"{path}:3: broken YAML: expected ',' or ']', but got ':' (while parsing a flow sequence that begins in line 2)"
    )


@pytest.mark.parametrize("content, what", [("- 1\n- 2\n", "a list"), ("just text", "a str"), ("\x07", "broken YAML")])
def test_a_file_that_is_no_mapping_is_refused(write, content, what):
    with pytest.raises(UserError, match=what):
        read_yaml(write("odd.yml", content))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00a\x80", "a: gr\xf6\xdfe".encode("latin-1"), "a: 1".encode("utf-16")])
def test_a_file_that_is_no_text_is_refused(content, tmp_path):
    path = tmp_path / "binary.yml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"binary\.yml: cannot be read: it is not in UTF-8, save it so"):
        read_yaml(str(path))


def test_an_empty_file_is_an_empty_mapping(write):
    assert read_yaml(write("empty.yml", "# nothing\n")) == {}


def test_a_missing_file_names_the_nearest(write, tmp_path):
    write("retinanet.yml", "a: 1")
    with pytest.raises(UserError, match=r"retinanett\.yml: no such config file; nearest: retinanet\.yml"):
        read_yaml(str(tmp_path / "retinanett.yml"))
    with pytest.raises(UserError, match=r"no such config file \(nor is there a folder .*nowhere\)"):
        read_yaml(str(tmp_path / "nowhere" / "a.yml"))
    with pytest.raises(UserError, match=r"ends in \.yml or \.yaml"):
        read_yaml(str(tmp_path / "a.json"))


def test_later_bases_override_earlier_ones_and_the_file_overrides_all(write):
    write("low.yml", "a: low\nb: low\nc: low\n")
    write("sub/high.yml", "_BASE_: [../low.yml]\nb: high\nc: high\n")
    path = write("top.yml", "_BASE_: ['low.yml', sub/high.yml]\nc: top\n")
    own, layers = read_with_bases(path)
    assert own == {"c": "top"}
    merged = {}
    for _, keys in layers:
        merge(merged, keys)
    assert merged == {"a": "low", "b": "high", "c": "top"}
    assert layers[-1] == (path, own)


def test_one_base_may_stand_without_a_list(write):
    write("low.yml", "a: 1\n")
    assert read_with_bases(write("top.yml", "_BASE_: low.yml\n"))[1][0][1] == {"a": 1}


def test_a_missing_base_names_the_file_that_asked_for_it_and_the_nearest(write):
    write("sub/runtime.yml", "a: 1\n")
    path = write("top.yml", "_BASE_: [sub/runtim.yml]\n")
    with pytest.raises(UserError, match=r"top\.yml:1: its _BASE_ 'sub/runtim\.yml' does not.*nearest: runtime\.yml"):
        read_with_bases(path)


@pytest.mark.parametrize("given", ["configs/custom/ppyoloe_plus_tiny_custm.yml", "ppyoloe_plus_tiny_custm.yml"])
def test_a_mistyped_path_of_ppkds_own_is_told_with_the_nearest(given, write, tmp_path):
    with pytest.raises(UserError, match=r"nearest: .*ppyoloe_plus_tiny_custom"):
        read_yaml(str(tmp_path / given))
    with pytest.raises(UserError, match=r"among ppkd's own\).*; nearest: .*ppyoloe_plus_tiny_custom"):
        read_with_bases(write("top.yml", f"_BASE_: [{given}]\n"))


def test_a_mistyped_name_of_ppkds_own_is_told_with_the_nearest(write):
    with pytest.raises(UserError, match=r"among ppkd's own\); nearest: .*ppyoloe_plus_tiny_custom"):
        read_with_bases(write("top.yml", "_BASE_: [ppyoloe_plus_tiny_custm]\n"))


def test_a_cycle_of_bases_is_named(write):
    write("b.yml", "_BASE_:\n  [a.yml]\n")
    with pytest.raises(UserError, match=r"b\.yml:2: .*leads back to where .*: (\S*a\.yml) -> \S*b\.yml -> \1$"):
        read_with_bases(write("a.yml", "_BASE_: [b.yml]\n"))


def test_one_base_may_be_reached_twice(write):
    write("common.yml", "a: 1\n")
    write("left.yml", "_BASE_: [common.yml]\n")
    write("right.yml", "_BASE_: [common.yml]\n")
    assert len(read_with_bases(write("top.yml", "_BASE_: [left.yml, right.yml]\n"))[1]) == 5


def test_merge_goes_into_mappings_and_replaces_all_else():
    into = {"m": {"x": 1, "l": [1, 2, 3]}, "v": 1}
    merge(into, {"m": {"l": [4]}, "v": {"y": 1}})
    assert into == {"m": {"x": 1, "l": [4]}, "v": {"y": 1}}


def test_merge_over_a_tag():
    """Fields change under the same tag; another tag, or a `name`, takes its place."""

    def tagged():
        return {"d": Tagged("COCODataSet", {"image_dir": "train", "repeat": 2})}

    fields = merge(tagged(), {"d": {"image_dir": "mine"}})["d"]
    assert fields.tag == "COCODataSet" and fields == {"image_dir": "mine", "repeat": 2}
    other = merge(tagged(), {"d": Tagged("VOCDataSet", {"anno_path": "a"})})["d"]
    assert other.tag == "VOCDataSet" and other == {"anno_path": "a"}
    named = merge(tagged(), {"d": {"name": "VOCDataSet"}})["d"]
    assert not isinstance(named, Tagged) and named == {"name": "VOCDataSet"}


def test_merge_and_clone_share_nothing():
    source = {"a": {"l": [1]}, "t": Tagged("T", {"x": [1]}, args=[[1]])}
    for copied in (merge({}, source), clone(source)):
        copied["a"]["l"].append(2)
        copied["t"]["x"].append(2)
        copied["t"].args[0].append(2)
        assert source == {"a": {"l": [1]}, "t": {"x": [1]}} and source["t"].args == [[1]]


def test_what_dump_writes_reads_back(write):
    value = {
        "lr": 1e-05, "text": "1e-3", "none": None, "yes": "yes", "size": [[640, 640]], "umlaut": "Größe",
        "data": Tagged("COCODataSet", {"image_dir": "train", "deep": {"a": [1, {"b": 2}]}}),
        "steps": [Tagged("PiecewiseDecay", args=[0.1, [8, 11]]), Tagged("CosineDecay")],
    }  # fmt: skip
    shared = {"x": 1}
    value["one"], value["two"] = shared, shared
    text = dump(value)
    assert "&" not in text and "*" not in text
    back = read_yaml(write("dumped.yml", text))
    assert back == value
    assert back["data"].tag == "COCODataSet"
    assert [step.tag for step in back["steps"]] == ["PiecewiseDecay", "CosineDecay"]
    assert back["steps"][0].args == [0.1, [8, 11]]


def test_an_override_that_is_no_yaml_says_so():
    with pytest.raises(UserError, match=r"-o: '\[1, 2' is not a YAML value: expected ',' or '\]'"):
        parse_value("[1, 2")


@pytest.mark.parametrize(
    "text, source",
    [
        ("a: [head.cls[*], head.ltrb[*]]", "head.cls[*]"),
        ("a: {student: neck[*], loss: mimic}", "neck[*]"),
        ("a: {student: neck[s8,s16], loss: mimic}", "neck[s8,s16]"),
    ],
)
def test_a_source_that_has_to_be_quoted_is_told(text, source, tmp_path):
    path = tmp_path / "x.yml"
    path.write_text(f"b: 1\n{text}\n")
    with pytest.raises(UserError, match=re.escape(f'in brackets or braces a source is quoted: "{source}"')):
        read_yaml(str(path))


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: 1\nb:\n\tc: 2\n", r":3: broken YAML: .*indented with spaces, never with tabs"),
        ("a: 1\nb: [1,\n\t2]\nc: !X\n\t d: 1\n", r":3: broken YAML: .*never with tabs"),
        ("a: 1\nb: *elsewhere\n", r":2: broken YAML: found undefined alias 'elsewhere'; an anchor is known .*own file"),
        ("a: 1\nb: &x [1, *x]\n", r":2: broken YAML: found unconstructable recursive node: an alias inside"),
        ("a: &x {b: *x}\n", r":1: broken YAML: found unconstructable recursive node"),
        ("a: &x\n  b: !T {c: *x}\n", r":[12]: broken YAML: found unconstructable recursive node"),
        ("a: 1\nb: 2001-99-99\n", r":2: broken YAML: a value that cannot be \(ValueError: month must be"),
        ("a: 1\nb: !!int x\n", r":2: broken YAML: a value that cannot be \(ValueError"),
        ("a: 1\nb: !!bool x\n", r":2: broken YAML: a value that cannot be \(KeyError"),
        (f"a: 1\nb: 0x{'f' * 5000}\n", r":2: broken YAML: a value that cannot be \(ValueError: Exceeds the limit"),
        (f"a: 1\nb: [1{':0' * 3000}]\n", r":2: broken YAML: a value that cannot be \(ValueError: Exceeds the limit"),
        ("a: 1\nb: !!timestamp x\n", r":2: broken YAML: a value that cannot be \(AttributeError"),
        ("a: 1\n? [1, 2]\n: 3\n", r":2: broken YAML: a key has to be a plain value"),
        ("a: 1\n7: 1\nb: 2\n7: 3\n", r":4: the key 7 stands twice"),
        ("a: 1\nb: !Decay 3\n", r":2: broken YAML: !Decay stands before a plain value"),
        ("a: " + "[" * 1500 + "\n", r": broken YAML: nested too deeply"),
        ("a: 1\n--- \nb: 2\n", r":2: broken YAML: .*another document"),
        ("a: 1\nb: !!unknown 2\n", r":2: broken YAML: could not determine a constructor"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(write, text, message):
    with pytest.raises(UserError, match=rf"wrong\.yml{message}"):
        read_yaml(write("wrong.yml", text))


@pytest.mark.parametrize("kind", ["[{0}, {0}]", "{{x: {0}, y: {0}}}", "!T {{x: {0}, y: {0}}}", "!T [{0}, {0}]"])
def test_anchors_that_repeat_without_end_are_refused(write, kind):
    """Thirty lines that come to a thousand million values; a config's own few anchors are no matter."""
    lines = ["a0: &a0 [1, 2]", *(f"a{n}: &a{n} " + kind.format(f"*a{n - 1}") for n in range(1, 30))]
    assert "a5" in read_yaml(write("few.yml", "\n".join(lines[:6])))
    with pytest.raises(UserError, match=r"bomb\.yml:1: broken YAML: anchors repeat so much"):
        read_yaml(write("bomb.yml", "\n".join(lines)))
    merged = ["a0: &a0 {k: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 30))]
    with pytest.raises(UserError, match=r"bomb\.yml:18: broken YAML: `<<` brings more than"):
        read_yaml(write("bomb.yml", "\n".join(merged)))


def test_a_python_tag_under_another_handle_is_refused(write):
    for text in ("%TAG !e! tag:yaml.org,2002:python/\n---\na: !e!object/apply:os.getcwd []\n",
                 "a: !<tag:yaml.org,2002:python/object/apply:os.getcwd> []\n",
                 "%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.getcwd ''\n"):  # fmt: skip
        with pytest.raises(UserError, match=r"a\.yml:\d: the tag !!python/.* is refused"):
            read_yaml(write("a.yml", text))


@pytest.mark.parametrize("base", ["{x: 1}", "3", "[low.yml, {x: 1}]", "[[low.yml]]", "!T [low.yml]"])
def test_a_base_that_is_no_path(write, base):
    write("low.yml", "a: 1\n")
    with pytest.raises(UserError, match=r"top\.yml:2: _BASE_ lists paths of config files, this is"):
        read_with_bases(write("top.yml", f"a: 1\n_BASE_: {base}\n"))


def test_bases_that_double_with_each_file_are_refused(write):
    write("0.yml", "a: 1\n")
    for n in range(1, 30):
        write(f"{n}.yml", f"_BASE_: [{n - 1}.yml, {n - 1}.yml]\n")
    with pytest.raises(UserError, match=r"come to more than 1000"):
        read_with_bases(write("top.yml", "_BASE_: [29.yml]\n"))


def test_other_broken_yaml_says_nothing_of_sources(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("a: [1, 2\nb: 3\n")
    with pytest.raises(UserError) as caught:
        read_yaml(str(path))
    assert "quoted" not in str(caught.value)
