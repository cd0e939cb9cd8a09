"""Vision transformers: the numbers of Hugging Face's, and what a file of weights that is another's is told."""

import numpy as np
import paddle
import pytest
from paddle.utils import unique_name

from ppkd.bridge.weights import load_teacher
from ppkd.bridge.workspace import build_detector
from ppkd.detectors import detector_for
from ppkd.detectors.recorders import recording
from ppkd.errors import UserError
from ppkd.files.tensor_files import write_tensors
from ppkd.models.vit.cubic import weights
from ppkd.models.vit.variants import VARIANTS, variant_in, variant_of
from tests.models.vit.make import CASES, HERE, drawn, image

GIVEN = np.load(HERE / "outputs.npz")


def shapes_of(case):
    lines = [line.split() for line in GIVEN[f"{case}/names"]]
    return {name: [int(side) for side in shape] for name, *shape in lines}


def file_of(case, folder, **changed):
    path = folder / "model.safetensors"
    state = {name: drawn(name, shape) for name, shape in shapes_of(case).items()} | changed
    write_tensors(path, {name: value for name, value in state.items() if value is not None}, ".safetensors")
    return str(path)


def build(sizes):
    with unique_name.guard():
        return build_detector({"architecture": "ViTTeacher", "ViTTeacher": {"variant": sizes}})


@pytest.mark.parametrize("case", CASES)
def test_every_layer_is_hugging_faces(case, tmp_path):
    sizes, size = CASES[case]
    model = build(sizes)
    load_teacher(model, file_of(case, tmp_path), {"backbone"})
    model.eval()
    adapter = detector_for(model)
    names = ["tokens", "cls", *(f"tokens.{k}" for k in range(sizes["depth"]))]
    taps = {name: adapter.aliases()[name](0) for name in names}
    with paddle.no_grad(), recording(model, taps.values()) as recorder:
        adapter.run({"image": paddle.to_tensor(image(size))}, {path for tap in taps.values() for path in tap.paths})
    wanted = {"tokens": f"map{sizes['depth'] - 1}", "cls": "summary"}
    for name, tap in taps.items():
        expected = GIVEN[f"{case}/{wanted.get(name, 'map' + name[7:])}"]
        found = recorder.take(tap).numpy()
        assert np.abs(found - expected.reshape(found.shape)).max() < 1e-4, name
        assert np.abs(expected).max() > 0.5


def test_blocks_behind_the_last_that_is_wanted_do_not_run():
    sizes, size = CASES["dinov3"]
    model = build(sizes)
    calls = [[] for _ in model.backbone.layer]
    for layer, found in zip(model.backbone.layer, calls):
        layer.register_forward_post_hook(lambda *_, found=found: found.append(1))
    detector_for(model).run({"image": paddle.to_tensor(image(size))}, {"map1"})
    assert [len(found) for found in calls] == [1, 1, 0]


def test_levels_are_of_a_patch_and_of_a_cell():
    adapter = detector_for(build(CASES["dinov2"][0]))
    (tokens,), (first,), (summary,) = (adapter.levels(name) for name in ("tokens", "tokens.0[*]", "cls"))
    assert (tokens.channels, tokens.stride) == (16, 4) == (first.channels, first.stride)
    assert (summary.channels, summary.stride, summary.cells) == (16, None, (1, 1))
    with pytest.raises(UserError, match=r"has no source 'tokens.3'.*named sources: tokens"):
        adapter.levels("tokens.3")


@pytest.mark.parametrize("antialias", [False, True])
def test_resized_positions_keep_what_is_everywhere_the_same(antialias):
    for size, wanted in ((37, 16), (16, 37), (5, 7), (9, 4)):
        assert np.allclose(weights(size, wanted, antialias).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_published_size_is_known_by_its_tensors(name):
    variant = VARIANTS[name]
    v3, width = variant.family == "dinov3", variant.width
    begin, query = ("", "attention.q_proj") if v3 else ("encoder.", "attention.attention.query")
    shapes = {f"{begin}layer.{i}.{query}.weight": [width, width] for i in range(variant.depth)}
    conv = "weight" if v3 else "projection.weight"
    shapes[f"embeddings.patch_embeddings.{conv}"] = [width, 3, variant.patch, variant.patch]
    if variant.registers:
        shapes["embeddings.register_tokens"] = [1, variant.registers, width]
    if variant.grid:
        shapes["embeddings.position_embeddings"] = [1, 1 + variant.grid**2, width]
    gate = {False: {}, True: {"gate_proj.weight" if v3 else "weights_in.weight": [1, 1]}}[variant.gated]
    down = "down_proj" if v3 else "weights_out" if variant.gated else "fc2"
    for inner, shape in {**gate, f"{down}.weight": [width, variant.hidden]}.items():
        shapes[f"{begin}layer.0.mlp.{inner}"] = shape
    assert variant_in(shapes) == variant and variant_in(shapes).name == name


@pytest.mark.parametrize(
    "case, sizes, told",
    [
        ("dinov2", {"width": 32, "hidden": 128}, "width 16, but the teacher is"),
        ("dinov2", {"registers": 4}, "registers 0, but the teacher is"),
        ("dinov3", {"depth": 2}, "depth 3, but the teacher is"),
        ("dinov3", {"family": "dinov2", "grid": 5}, "family dinov3, but the teacher is dinov2"),
        ("dinov2 gated", {"gated": False}, "gated True"),
        ("dinov2", "dinov2-vits14", "but the teacher is dinov2-vits14"),
    ],
)
def test_weights_of_another_size_are_named(case, sizes, told, tmp_path):
    model = build(sizes if isinstance(sizes, str) else CASES[case][0] | sizes)
    with pytest.raises(UserError, match=told):
        load_teacher(model, file_of(case, tmp_path), {"backbone"})


@pytest.mark.parametrize(
    "case, changed, told",
    [
        ("dinov3", {"embeddings.register_tokens": None}, "registers 0, but .* dinov3-vits16 is nearest"),
        ("dinov2", {"encoder.layer.2.attention.attention.query.weight": None}, "depth 2, .*dinov2-vits14 is nearest"),
        ("dinov3", {"layer.0.attention.q_proj.weight": ()}, "width 0, but the teacher is"),
        ("dinov3", {"embeddings.register_tokens": (4,)}, "registers 0, but the teacher is"),
        ("dinov3", {"embeddings.patch_embeddings.weight": ()}, "patch 0, but the teacher is"),
        ("dinov3", {"layer.0.mlp.down_proj.weight": (4,)}, "hidden 0, but the teacher is"),
        ("dinov2", {"embeddings.position_embeddings": (4,)}, "grid 0, but the teacher is"),
        ("dinov2 gated", {"encoder.layer.0.mlp.weights_in.weight": (127, 24)}, "gate and way up are two halves"),
    ],
)  # fmt: skip
def test_tensors_of_other_axes_are_another_size(case, changed, told, tmp_path):
    made = {name: None if shape is None else np.zeros(shape, "float32") for name, shape in changed.items()}
    with pytest.raises(UserError, match=told):
        load_teacher(build(CASES[case][0]), file_of(case, tmp_path, **made), {"backbone"})


def test_names_of_its_authors_own_files_are_told(tmp_path):
    names = ("cls_token", "blocks.0.attn.qkv.weight", "patch_embed.proj.weight")
    write_tensors(tmp_path / "x.safetensors", {name: np.zeros([1, 1, 16], "float32") for name in names}, ".safetensors")
    with pytest.raises(UserError, match=r"its tensors .*blocks.0.* are under other names than Hugging Face's"):
        load_teacher(build(CASES["dinov3"][0]), str(tmp_path / "x.safetensors"), {"backbone"})


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path):
    model = build(CASES["dinov3"][0])
    with pytest.raises(UserError, match=r"1 not in the file: backbone.layer.1.mlp.down_proj.bias"):
        load_teacher(model, file_of("dinov3", tmp_path, **{"layer.1.mlp.down_proj.bias": None}), {"backbone"})


@pytest.mark.parametrize(
    "given, told",
    [
        ("dinov3-vitb14", "no vision transformer 'dinov3-vitb14'.*dinov3-vitb16"), ({"widht": 3}, "has no 'widht'"),
        ([1], "a name such as dinov3-vitb16 or"),
        ({"width": 30, "heads": 4}, "width a multiple of heads"), ({"depth": 1.5}, "depth: 1.5 is none"),
        ({"family": "dinov4"}, "family: 'dinov4' is none"), ({"depth": 0}, "have to be above 0"),
    ],
)  # fmt: skip
def test_a_size_that_is_none_is_refused(given, told):
    with pytest.raises(UserError, match=told):
        variant_of(given, "x.yml: teacher.vit")
