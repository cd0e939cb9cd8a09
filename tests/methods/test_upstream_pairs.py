"""Student and slim files in the shape of PaddleDetection 2.6's own run unchanged: twins, heads, overrides, tags."""

import json

import pytest

from ppkd.bridge.weights import load_exactly
from ppkd.bridge.workspace import build_detector
from ppkd.build import build_model
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, enliven
from tests.helpers_tools import call, write

# The student of localisation distillation: the head holds the method's weights.
LD_STUDENT = f"""
_BASE_: [
  '{CONFIGS}/gfl_tiny.yml',
]
find_unused_parameters: True

architecture: GFL
GFL:
  backbone: ResNet
  neck: FPN
  head: LDGFLHead

ResNet:
  depth: 18
  variant: d
  norm_type: bn
  freeze_at: 0
  return_idx: [1,2,3]
  num_stages: 4

FPN:
  out_channel: 32
  spatial_scales: [0.125, 0.0625, 0.03125]
  extra_stage: 1
  has_extra_convs: true
  use_c5: false

LDGFLHead:
  conv_feat:
    name: FCOSFeat
    feat_in: 32
    feat_out: 32
    num_convs: 1
    norm_type: "gn"
    use_dcn: false
  feat_in_chan: 32
  fpn_stride: [8, 16, 32, 64]
  prior_prob: 0.01
  reg_max: 8
  loss_class:
    name: QualityFocalLoss
    use_sigmoid: True
    beta: 2.0
    loss_weight: 1.0
  loss_dfl:
    name: DistributionFocalLoss
    loss_weight: 0.25
  loss_bbox:
    name: GIoULoss
    loss_weight: 2.0
  loss_ld:
    name: KnowledgeDistillationKLDivLoss
    loss_weight: 0.25
    T: 10
  loss_ld_vlr:
    name: KnowledgeDistillationKLDivLoss
    loss_weight: 0.5
    T: 10
  loss_kd:
    name: KnowledgeDistillationKLDivLoss
    loss_weight: 10
    T: 2
  nms:
    name: MultiClassNMS
    nms_top_k: 100
    keep_top_k: 20
    score_threshold: 0.01
    nms_threshold: 0.6
"""
# The plain detector of the student's size, which the slim file makes deeper to describe the teacher.
LD_BASE = f"""
_BASE_: ['{CONFIGS}/gfl_tiny.yml']
GFL:
  backbone: ResNet
ResNet:
  depth: 18
  variant: d
  norm_type: bn
  freeze_at: 0
  return_idx: [1,2,3]
  num_stages: 4
FPN:
  out_channel: 32
GFLHead:
  conv_feat:
    feat_in: 32
    feat_out: 32
    norm_type: "gn"
  feat_in_chan: 32
"""
LD_SLIM = """
_BASE_: [
  'base.yml',
]

# teacher
pretrain_weights: teacher.pdparams

slim: Distill
slim_method: LD

ResNet:
  depth: 34
  variant: d
  norm_type: bn
  freeze_at: 0
  return_idx: [1,2,3]
  num_stages: 4

TrainReader:
  batch_transforms:
  - PadBatch: {pad_to_stride: 64}
  - Gt2GFLTarget:
      downsample_ratios: [8, 16, 32, 64]
      grid_cell_scale: 8
      compute_vlr_region: True
"""
# The twin of a PP-YOLOE+.
TWIN = """
for_distill: True
architecture: PPYOLOE
PPYOLOE:
  backbone: CSPResNet
  neck: CustomCSPPAN
  yolo_head: PPYOLOEHead
  post_process: ~
"""
READER = """
worker_num: 0
TrainReader:
  sample_transforms:
    - Decode: {}
    - RandomDistort: {}
    - RandomExpand: {fill_value: [123.675, 116.28, 103.53]}
    - RandomCrop: {}
    - RandomFlip: {}
  batch_transforms:
    - BatchRandomResize: {target_size: [64], random_size: True, random_interp: True, keep_ratio: False}
    - NormalizeImage: {mean: [0., 0., 0.], std: [1., 1., 1.], norm_type: none}
    - Permute: {}
    - PadGT: {}
  batch_size: 4
  shuffle: True
  drop_last: True
  use_shared_memory: True
  collate_batch: True
"""
PPYOLOE_STUDENT = f"""
_BASE_: [
  '{CONFIGS}/ppyoloe_tiny.yml',
]
{TWIN}
LearningRate:
  base_lr: 0.001
  schedulers:
    - !CosineDecay
      max_epochs: 96
    - !LinearWarmup
      start_factor: 0.
      epochs: 5
{READER}
log_iter: 1
depth_mult: 0.33
width_mult: 0.125
"""
PPYOLOE_SLIM = f"""
_BASE_: [
  '{CONFIGS}/ppyoloe_tiny.yml',
]
depth_mult: 0.67
width_mult: 0.25
{TWIN}
pretrain_weights: teacher.pdparams
find_unused_parameters: True
{READER}

slim: Distill
slim_method: PPYOLOEDistill
distill_loss: DistillPPYOLOELoss

DistillPPYOLOELoss: # teacher -> student
  loss_weight: {{'logits': 4.0, 'feat': 1.0}}
  logits_distill: True
  logits_loss_weight: {{'class': 1.0, 'iou': 2.5, 'dfl': 0.5}}
  logits_ld_distill: True
  logits_ld_params: {{'weight': 20000, 'T': 10}}
  feat_distill: True
  feat_distiller: 'fgd' # ['cwd', 'fgd', 'pkd', 'mgd', 'mimic']
  feat_distill_place: 'neck_feats'
  teacher_width_mult: 0.25
  student_width_mult: 0.125
  feat_out_channels: [768, 384, 192]
"""
CWD_SLIM = f"""
_BASE_: [
  '{CONFIGS}/gfl_wide.yml',
]

pretrain_weights: teacher.pdparams

slim: Distill
slim_method: CWD
distill_loss: CWDFeatureLoss
distill_loss_name: ['cls_f_3', 'cls_f_2', 'cls_f_1', 'cls_f_0']

CWDFeatureLoss:
  student_channels: 80
  teacher_channels: 80
  tau: 1.0
  weight: 5.0
"""
YOLOV3_SLIM = f"""
_BASE_: [
  '{CONFIGS}/yolov3_wide.yml',
]

pretrain_weights: teacher.pdparams

slim: Distill
distill_loss: DistillYOLOv3Loss

DistillYOLOv3Loss:
  weight: 1000
"""
_FEATURES = [f"feat.s{s}.{part}" for s in (8, 16, 32) for part in ("fg", "bg", "attention", "relation")]
# Family -> student, slim, further files by name, and the parts that the log has to name.
PAIRS = {
    "gfl ld": (LD_STUDENT, LD_SLIM, {"base": LD_BASE}, ["ld.main", "ld.vlr", "ld.kd"]),
    "gfl cwd": (f"_BASE_: ['{CONFIGS}/gfl_tiny.yml']", CWD_SLIM, {}, ["cwd_neck.s8", "cwd_cls.s8", "cwd_neck.s64"]),
    "ppyoloe": (PPYOLOE_STUDENT, PPYOLOE_SLIM, {}, ["logits.class", "logits.kd", *_FEATURES]),
    "yolov3": (f"_BASE_: ['{CONFIGS}/yolov3_tiny.yml']", YOLOV3_SLIM, {}, ["yolov3.s8.obj", "yolov3.s32.x"]),
}
each = pytest.mark.parametrize("name", [pytest.param(name, id=name.replace(" ", "-")) for name in PAIRS])


@pytest.fixture
def files(tmp_path, shapes):
    """Function that writes a pair's files and returns the arguments of a tool: student, slim, overrides."""

    def make(name, teacher=True):
        student, slim, more, _ = PAIRS[name]
        for stem, text in {"student": student, "slim": slim, **more}.items():
            write(tmp_path / f"{stem}.yml", text)
        paths = [str(tmp_path / "student.yml"), str(tmp_path / "slim.yml")]
        given = [f"dataset_dir={shapes}", f"save_dir={tmp_path}"]
        if teacher:
            import paddle

            spec = load_recipe(*paths, given).teachers["teacher"]
            weights = str(tmp_path / "teacher.pdparams")
            paddle.save(enliven(build_detector(spec.config)).state_dict(), weights)
            given.append(f"teacher.pretrain_weights={weights}")
        return paths, given

    return make


def _records(folder):
    return [json.loads(line) for line in (folder / "student" / "metrics.jsonl").read_text().splitlines()]


@each
def test_the_pair_trains_and_evaluates(name, files, tmp_path):
    (student, slim), given = files(name)
    train = ("train", "-c", student, "--slim_config", slim, "--eval", "--max_steps", 1, "-o", *given)
    assert call(*train) == (0, "")
    first, last = (record for record in _records(tmp_path) if record["kind"] != "gradients")
    assert (first["kind"], last["kind"]) == ("train", "eval") and "AP" in last
    assert [part for part in PAIRS[name][3] if part not in first] == []
    # What the tool leaves is a plain detector, which the same file evaluates.
    done = tmp_path / "ap.json"
    weights = f"weights={tmp_path}/student/model_final"
    evaluate = ("eval", "-c", student, "--slim_config", slim, "--json", done, "-o", f"{given[0]}", weights)
    assert call(*evaluate) == (0, "")
    assert json.loads(done.read_text())["AP"] == pytest.approx(last["AP"], abs=1e-6)


def test_the_teacher_is_what_the_slim_file_makes_of_its_base(files):
    (student, slim), given = files("gfl ld", teacher=False)
    loaded = load_recipe(student, slim, given)
    teacher = loaded.teachers["teacher"].config
    assert (loaded.student["ResNet"]["depth"], teacher["ResNet"]["depth"]) == (18, 34)
    assert (loaded.student["GFL"]["head"], teacher["GFL"]["head"]) == ("LDGFLHead", "GFLHead")
    (student, slim), given = files("ppyoloe", teacher=False)
    loaded = load_recipe(student, slim, given)
    teacher = loaded.teachers["teacher"].config
    assert (loaded.student["width_mult"], teacher["width_mult"], teacher["depth_mult"]) == (0.125, 0.25, 0.67)


def test_the_students_head_holds_the_methods_weights(files):
    (student, slim), given = files("gfl ld")
    (term,) = build_model(load_recipe(student, slim, given)).terms
    assert (term.spec.loss["ld_weight"], term.spec.loss["vlr_weight"], term.spec.loss["kd_weight"]) == (0.25, 0.5, 10)


def test_what_the_slim_file_says_of_the_reader_is_the_runs(files):
    (student, slim), given = files("gfl ld", teacher=False)
    loaded = load_recipe(student, slim, given)
    assert loaded.student["TrainReader"]["batch_transforms"][1]["Gt2GFLTarget"]["compute_vlr_region"] is True
    assert loaded.student["TrainReader"]["batch_size"] == 2, "which it says nothing of"
    assert any(note.startswith("TrainReader: set by the slim file") for note in loaded.notes)


def test_the_student_with_the_ld_head_trains_alone(files, tmp_path):
    (student, _), given = files("gfl ld", teacher=False)
    assert call("train", "-c", student, "--eval", "--max_steps", 1, "-o", *given) == (0, "")
    first, last = _records(tmp_path)
    assert {key for key in first if key.startswith("loss")} == {"loss", "loss_qfl", "loss_bbox", "loss_dfl"}
    # ppdet's plain GFL takes the weights, all of them.
    plain = load_recipe(str(tmp_path / "base.yml"), None, given).student
    model = build_detector(plain)
    assert type(model.head).__name__ == "GFLHead"
    assert load_exactly(model, str(tmp_path / "student" / "model_final"), "weights").complete
