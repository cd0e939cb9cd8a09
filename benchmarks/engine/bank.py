"""Rows of steps that read a full bank, beside the student alone and the live teacher; of reading, and of its forms."""

import os
import shutil
import statistics
import tempfile
import time
import zlib

from benchmarks.engine.scaling import SLIM, STUDENT, WEIGHTS
from benchmarks.engine.steps import STEPS, opened
from benchmarks.reporting.rows import Row
from benchmarks.study.timing import samples


class Pair:
    """A recipe's model with a full bank of one batch, and the same without.

    Args:
        recipe: `recipe.Recipe` with weights.
        folder: for the bank.
    """

    def __init__(self, recipe, folder):
        from ppkd.bridge.datasets import open_dataset
        from ppkd.bridge.workspace import create, scope
        from ppkd.build import build_model
        from ppkd.engine.bank import SUFFIX, VIEW, Bank
        from ppkd.training.loader import TrainLoader

        with scope(recipe.student):
            loader = TrainLoader(create("TrainReader"), open_dataset("TrainDataset", recipe.student), 0, 0)
        loader.views = 1
        self.batch = next(loader.epoch(0)) | {"epoch_id": 0}
        self.live = {key: value for key, value in self.batch.items() if key != VIEW}
        self.model = build_model(recipe)
        self.model.train()
        self.bank = self.model.asked.bank = Bank(folder, {})
        self.bank.open()
        self.model.fill(dict(self.batch))
        (name,) = (name for name in os.listdir(folder) if name.endswith(SUFFIX))
        self.path, self._view = os.path.join(folder, name), self.batch[VIEW]

    def sides(self):
        """Steps in turn: the student's, with the teacher, and with the bank; the teacher and reading by themselves."""
        import paddle

        parameters = [p for p in self.model.parameters() if not p.stop_gradient]
        optimizer = paddle.optimizer.Momentum(0.0, parameters=parameters)

        def step(layer, batch):
            layer(dict(batch))["loss"].backward()
            optimizer.step()
            optimizer.clear_grad()

        return {
            "plain": lambda: step(self.model.student, self.live),
            "live": lambda: step(self.model, self.live),
            "bank": lambda: step(self.model, self.batch),
            "teacher": self.teacher,
            "read": self.read,
        }

    def teacher(self):
        """The needed part of the teacher's forward."""
        self.model.asked.run(dict(self.live), self.model.banked, self.model.asked.assigner)

    def read(self):
        """What a step reads."""
        terms, assigned = self.model.banked, self.model.asked.assigner is not None
        self.bank.taught(self._view, terms, terms, None, assigned)

    def cold(self, repeats=5):
        """Seconds that pass in reading while the page cache does not have the file, where that can be said."""
        found = []
        for _ in range(repeats):
            handle = os.open(self.path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
            begin = time.perf_counter()
            self.read()
            found.append(time.perf_counter() - begin)
        return statistics.median(found)

    def compressed(self):
        """What zlib's quickest would make of it: the size by this one, and seconds to read it back."""
        with open(self.path, "rb") as file:
            content = file.read()
        packed = zlib.compress(content, 1)
        begin = time.process_time()
        zlib.decompress(packed)
        return len(packed) / len(content), time.process_time() - begin


def _rows(name, recipe, target, repeats):
    folder = tempfile.mkdtemp()
    try:
        pair = Pair(recipe, folder)
        found = samples(pair.sides(), repeats, warmup=1)
        size, (share, unpacking), cold = os.path.getsize(pair.path) / 1e6, pair.compressed(), pair.cold()
    finally:
        shutil.rmtree(folder)
    least, median = ({side: of(values) for side, values in found.items()} for of in (min, statistics.median))
    images = int(pair.batch["image"].shape[0])
    note = (
        f"a full bank's step by the plain one, least of {repeats} (median {median['bank'] / median['plain']:.3f}); "
        f"with the teacher {least['live'] / least['plain']:.3f}; {images} images, {size:.2f} MB"
    )
    read = f"of a plain step; from a cold page cache {cold:.4f} s, the teacher's forward {least['teacher']:.4f} s"
    packed = f"by zlib 1: {share:.2f} of the size, {unpacking:.4f} s to unpack"
    return [
        Row(f"{name}, bank", least["bank"], None, least["plain"], least["bank"] / least["plain"], target, note=note),
        Row(f"{name}, reading", least["read"], None, least["plain"], least["read"] / least["plain"], "<= 0.03",
            note=f"{read}; {packed}"),
    ]  # fmt: skip


def ppyoloe_l_to_m():
    """PP-YOLOE+ l to m, two images of 320 pixels."""
    name, size = STEPS["step_ppyoloe_l_to_m"]
    return _rows("PP-YOLOE+ l to m", opened(name, size).recipe, "<= 1.15", 7)


def demo():
    """The demo's pair, eight images."""
    from ppkd.data.shapes import generate
    from ppkd.recipe.recipe import load_recipe

    with tempfile.TemporaryDirectory() as folder:
        generate(os.path.join(folder, "data"), train=8, val=2, seed=0)
        given = [f"dataset_dir={folder}/data", f"teacher.pretrain_weights={WEIGHTS}", "worker_num=0"]
        return _rows("the demo's pair", load_recipe(STUDENT, SLIM, given), "<= 1.12", 15)


GROUPS = {"bank_ppyoloe_l_to_m": ppyoloe_l_to_m, "bank_demo": demo}
