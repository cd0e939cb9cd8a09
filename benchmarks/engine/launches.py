"""What a step of the tests' small pairs launches on a GPU, part by part: kernels, counted on the CPU.

    python benchmarks/engine/launches.py [FAMILY METHOD]

Views of tensors count like all else that is dispatched.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import ppkd  # noqa: F401, I001  # before paddle
import paddle

from benchmarks.study.launches import launches


class Parts:
    """The parts of a training step, each as a number of launches.

    Args:
        model: `model.DistillModel` with one teacher.
        batch: of the loader.
    """

    def __init__(self, model, batch):
        self._model, self._batch = model, batch
        model.train()

    def count(self):
        """Name of a part -> launches."""
        plain, teacher, whole = launches(self.plain), launches(self.teacher), launches(self.whole)
        found = {"plain": plain, "teacher": teacher, "terms": whole - plain - teacher}
        found["wrapper"] = self.wrapper() - whole
        return {**found, **{name: launches(getattr(self, f"{name}_step")()) for name in _REST}}

    def plain(self):
        """The student's own forward and backward."""
        self._go(self._model.student)

    def teacher(self):
        """The teacher's forward, as far as it is needed."""
        self._model.asked.run(dict(self._batch), [term for term, _ in self._model.active_terms()], None)

    def whole(self):
        """Forward and backward of the distilled student."""
        self._go(self._model)

    def wrapper(self):
        """Launches of `whole` on one of two ranks, with the exchange."""
        from ppkd.engine.parallel import distribute, exchange

        def go():
            self._go(model)
            exchange(model)

        with two_ranks():
            model = distribute(self._model)
            return launches(go)

    def average_step(self):
        from ppkd.training.averaging import Averaging
        from ppkd.training.precision import Precision

        return Averaging(self._model.student, {"use_ema": True}, Precision({}, False)).update

    def skip_step(self):
        """Finding out whether a step is good, and putting back what it has changed if it is not."""
        from ppkd.detectors import detector_for
        from ppkd.training.numerics import Numerics

        numerics = Numerics({"on_nonfinite": "skip"}, self._model, detector_for(self._model.student), "", 0, 0, None)
        losses = self._go(self._model)

        def go():
            numerics.begin()
            numerics.add((0, 0, 0), {}, losses)
            numerics.good()
            numerics._put_back()

        return go

    def optimizer_step(self):
        parameters = [p for p in self._model.parameters() if not p.stop_gradient]
        clip = paddle.nn.ClipGradByGlobalNorm(10.0)
        optimizer = paddle.optimizer.Momentum(0.0, parameters=parameters, grad_clip=clip)

        def go():
            optimizer.step()
            optimizer.clear_grad()

        self._go(self._model)
        return go

    def _go(self, model):
        for parameter in self._model.parameters():
            parameter.clear_gradient(False)
        losses = model(dict(self._batch))
        losses["loss"].backward()
        return losses


_REST = ("average", "skip", "optimizer")


@contextlib.contextmanager
def two_ranks():
    """A block in which this process believes to be one of two, and what it sends comes back as it is."""
    from paddle import distributed

    from ppkd.engine import parallel

    with contextlib.ExitStack() as patched:
        patched.enter_context(mock.patch.object(distributed, "get_world_size", lambda *_: 2))
        patched.enter_context(mock.patch.object(distributed, "all_reduce", lambda tensor, *_, **__: None))
        patched.enter_context(mock.patch.object(parallel, "sync_params_buffers", lambda *_, **__: None))
        yield


def small_pair(folder, family="ppyoloe", method="ppyoloe"):
    """Model and batch of a pair of ``tests/configs``, with random weights."""
    from ppkd.build import build_model, build_student
    from ppkd.data.shapes import generate
    from ppkd.recipe.recipe import load_recipe
    from tests.conftest import CONFIGS, training_batch

    shapes, weights = generate(os.path.join(folder, "shapes"), train=12, val=6, size=64, seed=0), f"{folder}/t.pdparams"
    student, slim, teacher = (str(CONFIGS / f"{family}_{x}.yml") for x in ("tiny", method, "wide"))
    paddle.save(build_student(load_recipe(teacher, overrides=[f"dataset_dir={shapes}"])).state_dict(), weights)
    given = [f"dataset_dir={shapes}", f"save_dir={folder}", f"teacher.pretrain_weights={weights}"]
    recipe = load_recipe(student, slim, given)
    return build_model(recipe), training_batch(recipe)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("family", nargs="?", default="ppyoloe", help="of the detectors in tests/configs")
    parser.add_argument("method", nargs="?", default="ppyoloe", help="of a slim file of that family")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, number in Parts(*small_pair(folder, args.family, args.method)).count().items():
            print(f"{name:10} {number}")


if __name__ == "__main__":
    main()
