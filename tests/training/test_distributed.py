"""Invariants 4, 5 and 10 over two real processes, which exchange gradients by gloo."""

import json

import pytest

from ppkd.engine.channel_matching import assign
from tests.conftest import CONFIGS, FAMILIES
from tests.detectors.test_recorders import FIRED
from tests.engine.test_invariants import LEARNED
from tests.helpers_distributed import train
from tests.helpers_ranks import launch, on_two_ranks
from tests.helpers_training import QUICK, differing, strong

# Name -> family, method, overrides, options of helpers_distributed.train.
RUNS = {family: (family, "fgd", [], {}) for family in FAMILIES}
RUNS["begins_late"] = (QUICK, "fgd", ["epoch=2", "distill.start_epoch=1"], {})
RUNS["empty_rank"] = ("retinanet", "fgd", [], {"empty_rank": 1})
# Terms of all levels with a target assignment, those without, and terms without parameters.
RUNS["assignment"] = ("ppyoloe", "ppyoloe", ["PPYOLOEHead.static_assigner_epoch=0"], {"empty_rank": 1})
RUNS["all_levels"] = ("ppyoloe", "ld", [], {"empty_rank": 1})
# YOLOv3's loss and FGD's are means over images: what two ranks see in a step, one can see as well.
_ONE_SIZE = (
    "TrainReader.batch_transforms=[{BatchRandomResize: {target_size: 64, random_size: false, random_interp: false, "
    "keep_ratio: false}}, {NormalizeBox: {}}, {PadBox: {num_max_boxes: 20}}, {BboxXYXY2XYWH: {}}, "
    "{NormalizeImage: {}}, {Permute: {}}, {Gt2YoloTarget: {anchors: [[4, 4], [8, 6], [6, 10], [12, 12], [18, 12], "
    "[12, 20], [24, 24], [40, 24], [30, 44]], anchor_masks: [[6, 7, 8], [3, 4, 5], [0, 1, 2]], "
    "downsample_ratios: [32, 16, 8]}}]"
)
EQUAL = ["TrainReader.shuffle=false", _ONE_SIZE, "OptimizerBuilder.clip_grad_by_norm=null"]
RUNS["equal"] = ("yolov3", "fgd", [*EQUAL, "TrainReader.batch_size=2"], {"settled": True})
IN_PARTS = [*EQUAL, "TrainReader.batch_size=1", "accumulate=2"]
ACCUMULATED = {"accumulated": ("yolov3", "fgd", IN_PARTS, {"settled": True})}
# Images without labels beside the others, of this data set's validation images one on a rank, with a teacher's boxes.
_BOXES = "distill.pseudo_boxes={threshold: {disc: 0, triangle: 0, star: 0, ring: 0, cross: 0}}"
_PHOTOS = "unlabelled={images: PHOTOS, ratio: 0.3}"
BESIDE = {"beside": (QUICK, "cwd", [_PHOTOS, _BOXES], {"of_first": {"square": 0.125}})}
# One view of what two epochs see: the second reads; and a run that finds all of it there.
_BANK = ["TrainReader.batch_size=3", "epoch=2", "distill.bank={views: 1, folder: BANK}"]
BANKED = {name: (QUICK, "fgd", _BANK, {}) for name in ("filling", "reading")}
# Terms of its own, one of them brought to a share of the loss.
RUNS["terms"] = ("ppyoloe", "maps", [], {"empty_rank": 1})
# Convolutions that three levels share, and losses divided by a sum over all ranks.
RUNS["shared"] = ("rtmdet", "neck", [], {"empty_rank": 1})
# Channels matched by what both ranks have seen; two steps of two batches of three images.
RUNS["matching"] = ("resnet", "matching", [], {"empty_rank": 1})
RUNS["no_parameters"] = ("yolov3", "yolov3", [], {"empty_rank": 1})


def slim_file(folder, family, method):
    """The path of a slim file of `CONFIGS`, or of one that is made here where there is none."""
    path = CONFIGS / f"{family}_{method}.yml"
    if not path.exists():
        path = folder / path.name
        path.write_text(f"_BASE_: [{CONFIGS / (family + '_wide.yml')}]\nslim: Distill\nslim_method: {method.upper()}\n")
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shapes, teacher_weights):
    """Run name -> what rank 0 and rank 1 had after it."""
    folder = tmp_path_factory.mktemp("ranks")
    runs = {}
    for name, (family, method, overrides, options) in {**RUNS, **ACCUMULATED, **BESIDE, **BANKED}.items():
        given = [
            f"dataset_dir={shapes}", f"save_dir={folder / name}", f"teacher.pretrain_weights={teacher_weights[family]}",
            *strong(method), "TrainReader.batch_size=3", "epoch=1",
            *(given.replace("PHOTOS", f"{shapes}/val").replace("BANK", str(folder / "bank")) for given in overrides),
        ]  # fmt: skip
        slim = slim_file(folder, family, method)
        runs[name] = {"config": str(CONFIGS / f"{family}_tiny.yml"), "slim": slim, "overrides": given, **options}
    return on_two_ranks(folder, "tests/helpers_distributed.py", runs)


@pytest.mark.parametrize("name", RUNS)
def test_4_learnable_tensors_are_synchronised_across_ranks(name, finished):
    first, second = finished[name]
    assert not set(first["images"]) & set(second["images"]), "both ranks saw the same data"
    assert len(first["images"]) == first["steps"] == second["steps"] >= 2
    assert differing(first["before"], second["before"]) == []
    assert differing(first["after"], second["after"]) == []
    moved = differing(first["before"], first["after"])
    assert any(path.startswith("/student.") for path in moved)
    kinds = {path.split(".")[3] for path in moved if path.startswith("/terms.")}
    assert kinds == LEARNED[RUNS[name][1]]


def test_images_without_labels_are_shared_among_ranks_and_move_both_alike(finished):
    first, second = finished["beside"]
    assert differing(first["after"], second["after"]) == [] and differing(first["before"], first["after"])
    boxes = [rank["buffers"] for rank in finished["beside"]]
    least, counted = ([each[f"boxes.{name}"] for each in boxes] for name in ("least", "counted"))
    assert least[0].tolist() == least[1].tolist() and least[1].tolist()[:2] == [0, 0.125], "the first rank's count"
    assert all(int(each[2]) > 0 for each in counted) and counted[0].tolist() != [0, 0, 0]
    assert first["beside"] and not set(first["beside"]) & set(second["beside"]), "both ranks saw the same images"


def test_each_rank_fills_a_bank_with_its_batches_and_reads_them_to_the_bit(finished):
    """FGD's bank leaves the teacher out in the second epoch, and in a run that finds all there from the first."""
    filling, reading = finished["filling"], finished["reading"]
    for first, second in (filling, reading):
        assert not set(first["images"]) & set(second["images"]), "both ranks saw the same data"
        assert differing(first["after"], second["after"]) == []
    for rank in (0, 1):
        assert differing(filling[rank]["before"], filling[rank]["after"])
        assert differing(filling[rank]["after"], reading[rank]["after"]) == []
        steps, a_step = filling[rank]["steps"], fired(QUICK, "fgd")
        assert (filling[rank]["steps"], filling[rank]["fired"]) == (steps, a_step * steps * 3 // 4)
        assert (reading[rank]["steps"], reading[rank]["fired"]) == (steps, a_step * steps // 2)


@pytest.mark.parametrize("name", RUNS)
def test_10_hooks_fire_once_a_step_and_rank(name, finished):
    for rank in finished[name]:
        assert rank["wrapped"] == "Synchronised"
        with_terms = rank["steps"] - (2 if name == "begins_late" else 0)
        # The student's assigner is not called where the teacher's targets are taken.
        a_step = fired(*RUNS[name][:2]) - (name == "assignment")
        assert (rank["fired"], rank["hooks"]) == (a_step * with_terms, 0)


def test_a_magnitude_is_the_same_on_both_ranks(finished):
    first, second = (rank["magnitudes"] for rank in finished["terms"])
    ((mean, own, count),) = first
    assert first == second and count == 2 and mean > 0 and own > 0


def test_channels_are_matched_by_what_all_ranks_have_seen(finished):
    first, second = (rank["buffers"] for rank in finished["matching"])
    names = [name for name in first if name.endswith(".assignment")]
    assert len(names) == 11
    for name in names:
        counts, seen = ([x[name.replace("assignment", y)] for x in (first, second)] for y in ("images", "distances"))
        # Terms 4 and 5 look at one batch (track: 1), the others at both.
        images = 3.0 if name.startswith(("terms.4.", "terms.5.")) else 6.0
        assert [float(x) for x in counts] == [images, images]
        assert (seen[0] != seen[1]).any(), "the ranks saw different images"
        assert (first[name] == second[name]).all(), name
        single = len(first[name]) == 1
        of_both, of_first = (assign(sum(seen[:n]).numpy(), images * n, single) for n in (2, 1))
        assert (first[name].numpy() == of_both).all() and (of_first != of_both).any(), name


def fired(family, method):
    """Records of a step; of YOLOv3's neck and its teacher's."""
    return 2 if (family, method) == ("yolov3", "fgd") else sum(FIRED[family, method])


@pytest.mark.parametrize("name", ["equal", "accumulated"])
def test_two_ranks_of_a_batch_are_one_of_twice_the_batch(name, finished, shapes, teacher_weights, tmp_path):
    """Also where a rank's batch comes in two parts, whose gradients add up before they are exchanged."""
    given = [
        f"dataset_dir={shapes}", f"save_dir={tmp_path}", f"teacher.pretrain_weights={teacher_weights['yolov3']}",
        *strong("fgd"), "epoch=1", *EQUAL, "TrainReader.batch_size=4",
    ]  # fmt: skip
    one = train(str(CONFIGS / "yolov3_tiny.yml"), slim_file(tmp_path, "yolov3", "fgd"), given, settled=True)
    two = finished[name][0]
    assert len(two["images"]) == (6 if name == "accumulated" else 3)
    assert one["steps"] == two["steps"] == 3
    assert differing(one["before"], two["before"]) == []
    moved = [key for key, value in one["after"].items() if float((value - one["before"][key]).abs().max()) > 1e-3]
    assert {key.split(".")[0] for key in moved} == {"student", "terms"}
    for key, value in one["after"].items():
        gap = float((value - two["after"][key]).abs().max())
        assert gap <= 1e-5 * max(1.0, float(value.abs().max())), key


def test_the_train_tool_on_two_ranks(tmp_path, shapes, teacher_weights):
    logs = launch(
        tmp_path, "tools/train.py", "-c", CONFIGS / f"{QUICK}_tiny.yml", "--slim_config", CONFIGS / f"{QUICK}_fgd.yml",
        "--eval", "--max_steps", 2, "-o", f"dataset_dir={shapes}", f"teacher.pretrain_weights={teacher_weights[QUICK]}",
    )  # fmt: skip
    run = tmp_path / "output" / f"{QUICK}_tiny"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kinds = ["gradients", "train", "train", "eval"]
    assert [record["kind"] for record in records] == kinds, "one rank writes, and only one"
    assert {path.name for path in run.glob("*.pdparams")} == {"model_final.pdparams", "best_model.pdparams"}
    assert "saved" in logs[0] and "saved" not in logs[1]
