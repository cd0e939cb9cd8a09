"""compat/yolox_sizes.py is needed: YOLOX and the loading thread draw from the same generator."""

import os
import random

import paddle

from ppkd.bridge.workspace import import_ppdet
from ppkd.training.seeds import seed_step
from tests.helpers_hosts import cured
from tests.helpers_training import differing, fit


def test_sizes_come_from_a_generator_of_their_own():
    import_ppdet()
    from ppdet.modeling.architectures import yolox

    assert cured("draw_sizes_apart") and yolox.random is not random
    state = random.getstate()
    seed_step(0, 1, 2, 0)
    drawn = [yolox.random.randint(0, 10**6) for _ in range(3)]
    seed_step(0, 1, 2, 3)
    assert [yolox.random.randint(0, 10**6) for _ in range(3)] == drawn, "another size on another rank"
    seed_step(0, 1, 3, 0)
    assert [yolox.random.randint(0, 10**6) for _ in range(3)] != drawn
    assert random.getstate() == state, "the loading thread's generator was touched"


def test_without_the_patch_it_draws_from_the_loading_threads(recipe, monkeypatch):
    from ppdet.modeling.architectures import yolox

    from ppkd.build import build_student

    student = build_student(recipe("yolox", distil=False))
    state = random.getstate()
    student._get_size()
    assert random.getstate() == state
    monkeypatch.setattr(yolox, "random", random)
    student._step = 0
    student._get_size()
    assert random.getstate() != state


def test_a_resumed_yolox_trains_at_the_sizes_of_the_run_that_was_not_stopped(recipe, tmp_path):
    def run(name, **options):
        given = ["TrainReader.batch_size=4", "YOLOX.random_interval=2", "YOLOX.size_range=[2, 4]", "epoch=2"]
        loaded = recipe("yolox", "FGD", overrides=[*given, f"save_dir={tmp_path / name}"])
        return fit(loaded, **options), paddle.load(os.path.join(loaded.output_dir, "model_final.resume"))

    whole, expected = run("whole")
    _, half = run("half", max_steps=3)  # in the middle of two steps of one size
    _, rest = run("rest", resume=str(tmp_path / "half" / "yolox_tiny" / "model_final"))
    assert half["detector"]["step"] == 3 and expected["detector"]["step"] == 6
    for key in ("student", "terms", "optimizer", "ema", "detector"):
        assert differing({key: rest[key]}, {key: expected[key]}) == [], key
