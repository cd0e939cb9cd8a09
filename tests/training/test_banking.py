"""Runs with a bank: the same to the bit however it is filled; the teacher goes, and comes back when it has to."""

import errno
import gc
import os
import pathlib
import re
import shutil
import weakref
from types import SimpleNamespace

import pytest

from ppkd.detectors.base import Detector
from ppkd.engine.bank import VIEW, Bank
from ppkd.engine.channel_matching import Match
from ppkd.engine.connectors import TeacherHead
from ppkd.engine.entering import LettingGo
from ppkd.engine.model import DistillModel
from ppkd.errors import UserError
from ppkd.files import records
from ppkd.recipe.recipe import load_recipe
from ppkd.terminal.log import logger
from ppkd.training import bank_size, banking
from ppkd.training.bank_size import epochs_of_views, too_large
from ppkd.training.banking import fill_bank
from ppkd.training.contents import contents as contents_of
from ppkd.training.patience import Patience
from ppkd.training.precision import Precision
from ppkd.training.trainer import Trainer
from tests.conftest import CONFIGS
from tests.helpers_precision import imitate
from tests.helpers_training import FOUR, QUICK, count_calls, differing, fit

# Two views in three epochs of three batches.
_GIVEN = (FOUR, "epoch=3", "snapshot_epoch=100", "log_iter=100", "distill.bank.views=2", "TrainReader.shuffle=true")


def banked(recipe, folder, *more, family=QUICK, method="fgd"):
    """The recipe with a bank in a folder."""
    return recipe(family, method, overrides=[*_GIVEN, f"distill.bank.folder={folder}", *more])


def files(folder):
    """The records in a folder."""
    return sorted(pathlib.Path(folder).glob("*.view"))


def contents(folder):
    """What is in a folder."""
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory, shapes, teacher_weights):
    """A bank that a run has filled, and the state that the run has ended in."""
    folder = tmp_path_factory.mktemp("filled")
    given = [f"dataset_dir={shapes}", f"save_dir={folder}", f"teacher.pretrain_weights={teacher_weights[QUICK]}"]
    given += [*_GIVEN, f"distill.bank.folder={folder}/bank"]
    trainer = fit(load_recipe(str(CONFIGS / f"{QUICK}_tiny.yml"), str(CONFIGS / f"{QUICK}_fgd.yml"), given))
    assert len(files(folder / "bank")) == 6
    return folder / "bank", trainer.state()


@pytest.fixture
def bank(filled, tmp_path):
    """A copy of the filled bank."""
    return pathlib.Path(shutil.copytree(filled[0], tmp_path / "bank"))


def other_than(trainer, filled):
    """What differs from the state of the run that filled its bank; a run that was cut short has written more often."""
    return set(differing(trainer.state(), filled[1])) - {"/ema/epoch"}


def test_a_full_bank_gives_the_run_that_filled_it_without_the_teacher(recipe, filled, bank):
    with Trainer.open(banked(recipe, bank)) as trainer:
        assert trainer.distill.teachers == {}
        trainer.run()
    assert not other_than(trainer, filled) and contents(bank) == contents(filled[0])


def test_resumed_while_it_is_filled_is_uninterrupted(recipe, filled, tmp_path):
    for options in ({"max_steps": 1}, {"max_steps": 5, "resume": "auto"}, {"resume": "auto"}):
        trainer = fit(banked(recipe, tmp_path / "own"), **options)
    assert not other_than(trainer, filled) and contents(tmp_path / "own") == contents(filled[0])


def test_several_processes_fill_beforehand_what_the_run_would(recipe, filled, tmp_path):
    loaded = banked(recipe, tmp_path / "own")
    # The second takes part while the first one is at it; the third finds nothing to do, but for what is damaged.
    assert fill_bank(loaded, (0, 2), False, None)[1:] == (4, 0)
    assert fill_bank(loaded, (1, 2), False, lambda batches, text, total: batches)[1:] == (2, 0)
    files(tmp_path / "own")[3].write_bytes(b"cut")
    assert fill_bank(loaded, (0, 1), False, None)[1:] == (1, 5)
    assert contents(tmp_path / "own") == contents(filled[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_bank_of_mixed_precision_is_read_to_the_bit_and_by_nobody_else(dtype, recipe, tmp_path, monkeypatch):
    """Weights of the teacher are of the lower type, so that is what terms would take of it."""
    imitate(monkeypatch)
    mixed = [f"amp_dtype={dtype}", "teacher_dtype=" + dtype, f"distill.bank.dtype={dtype}", "epoch=2"]
    first = fit(banked(recipe, tmp_path / "bank", *mixed), amp=True)
    before = contents(tmp_path / "bank")
    with Trainer.open(banked(recipe, tmp_path / "bank", *mixed, f"save_dir={tmp_path}/two"), amp=True) as second:
        assert second.distill.teachers == {}
        second.run()
    assert len(before) == 7 and contents(tmp_path / "bank") == before
    assert set(differing(first.state(), second.state())) <= {"/digest"}
    begun = banked(recipe, tmp_path / "begun", f"amp_dtype={dtype}")
    fit(begun, amp=True, max_steps=1)
    with pytest.raises(UserError, match="precision"):
        fit(begun)


def test_the_teacher_is_held_by_nothing_comes_back_for_a_damaged_view_and_goes_again(recipe, filled, bank, monkeypatch):
    path = files(bank)[2]
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    with monkeypatch.context() as patch:
        patch.setattr(banking, "_weights", lambda model, calls=[]: calls.append(1) or str(len(calls)))
        patch.setattr(Bank, "open", lambda self: None)
        with pytest.raises(UserError, match="teacher: its weights are others than when the run began"):
            fit(banked(recipe, bank))
    came = []
    with Trainer.open(banked(recipe, bank)) as trainer:
        former = trainer.distill.asked.recall

        def recall():
            teachers = former()
            came.append(weakref.ref(teachers["teacher"]))
            return teachers

        trainer.distill.asked.recall = recall
        trainer.run()
    gc.collect()
    assert [held() for held in came] == [None]
    assert not other_than(trainer, filled) and contents(bank) == contents(filled[0])


def _full(monkeypatch, after):
    """No space left after so many records."""
    former, count = records.write_bytes, []

    def write_bytes(path, data):
        count.append(path)
        if len(count) > after:
            raise UserError(f"{path}: cannot be written: {os.strerror(errno.ENOSPC)}")
        former(path, data)

    monkeypatch.setattr(records, "write_bytes", write_bytes)


def test_no_space_left_stops_the_run_with_all_saved(recipe, filled, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        _full(patch, 4)
        with pytest.raises(UserError, match=r"own/\w+.view: cannot be written: No space left .*--resume auto"):
            fit(banked(recipe, tmp_path / "own"))
    assert len(files(tmp_path / "own")) == 4
    trainer = fit(banked(recipe, tmp_path / "own"), resume="auto")
    assert not other_than(trainer, filled)


def test_no_space_left_lets_the_teacher_go_on_if_the_key_says_so(recipe, filled, tmp_path, monkeypatch):
    _full(monkeypatch, 2)
    with Trainer.open(banked(recipe, tmp_path / "own", "distill.bank.on_failure=live")) as trainer:
        calls = count_calls(trainer.distill.teachers["teacher"].backbone)
        trainer.run()
    assert not other_than(trainer, filled) and len(files(tmp_path / "own")) == 2
    assert len(calls) == 3 + 3 + 1  # in the last epoch two are read


def test_what_it_takes_is_told_and_what_cannot_fit_refused_before(recipe, bank, tmp_path, monkeypatch, caplog):
    loaded, (stage, *_) = banked(recipe, tmp_path / "own"), files(bank)
    space = shutil._ntuple_diskusage(1 << 40, 0, (1 << 28) + 4 * stage.stat().st_size)
    monkeypatch.setattr(banking.shutil, "disk_usage", lambda folder: space)
    with pytest.raises(UserError, match="6 batches of views take about .*views: 1 would fit; on_failure: live"):
        fit(loaded)
    assert not files(tmp_path / "own")
    sizes = [path.stat().st_size for path in files(bank)]
    monkeypatch.setattr(logger(), "propagate", True)
    files(bank)[0].unlink()
    fit(banked(recipe, bank), max_steps=1)  # there is room for what is missing
    told = next(line for line in caplog.messages if line.startswith("bank: 2 views of 12 images, 5 of 6 batches there"))
    # Images are of several sizes, and what is told is the mean of all that they may have.
    assert min(sizes) < float(told.split("(")[1].split(" kB an image and view")[0]) * 4000 < max(sizes)


def test_who_the_bank_is_of_goes_by_teacher_reader_and_terms(recipe, bank, monkeypatch):
    with Trainer.open(banked(recipe, bank)) as trainer:
        made = trainer._banking
        made._model.asked._seat(made._recall())
        first = made._of()

        def differs():
            other = made._of()
            return sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))

        assert differs() == []
        student, spec = made._recipe.student, made._recipe.teachers["teacher"]
        student["seed"], seed = 5, student.get("seed")
        assert differs() == ["seed"]
        student["LearningRate"] = {"base_lr": 3}
        del student["seed"]
        student |= {} if seed is None else {"seed": seed}
        student["TrainReader"]["batch_size"] = 2
        assert differs() == ["TrainReader.batch_size"]
        student["TrainReader"]["batch_size"], spec.input_scale = 4, 2.0
        assert differs() == ["teacher.input_scale"]
        spec.input_scale, config = 1.0, dict(spec.config)
        spec.config["TrainReader"] = {"batch_transforms": [{"NormalizeImage": {"mean": [0.1, 0.2, 0.3]}}]}
        assert differs() == ["images of teacher"]
        spec.config = config
        student["stages"] = [{"epoch": 1, "TrainReader": {"shuffle": False}}]
        assert differs() and all(key.startswith("stages") for key in differs())
        del student["stages"]
        with monkeypatch.context() as patch:
            patch.setattr(banking, "contents", lambda recipe: dict.fromkeys(contents_of(recipe), "another"))
            assert differs() and all("TrainDataset." in key for key in differs())
        with monkeypatch.context() as patch:
            patch.setattr(DistillModel, "banked", made._model.banked[1:])
            assert differs() == ["terms"]
        weight = next(iter(made._model.teachers["teacher"].parameters()))
        weight.set_value(weight + 1)
        assert differs() == ["weights of teacher"]


def test_a_bank_of_maps_behind_a_connector_is_of_the_files_that_may_have_made_it(recipe, tmp_path, monkeypatch):
    """Of maps as the teacher makes them it is not: a loss of one's own may change, and the bank stays."""
    links = "student_connector: align, teacher_connector: standardise"
    term = f"distill.terms.behind={{student: 'neck[*]', {links}, loss: pkd}}"
    plugin = tmp_path / "links.py"
    with Trainer.open(banked(recipe, tmp_path / "own", term)) as trainer:
        made = trainer._banking
        made._recipe.method.options["plugins"] = [str(plugin)]
        every = made._model.banked
        plain = [each for each in every if each.spec.teacher_connector == "none"]
        for terms, stays in ((plain, True), (every, False)):
            monkeypatch.setattr(DistillModel, "banked", terms)
            found = []
            for text in ("first", "second"):
                plugin.write_text(text)
                found.append(made._of())
            assert (found[0] == found[1]) == stays


def test_what_mixes_images_keeps_the_live_teacher_by_name(recipe, bank, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)
    with Trainer.open(banked(recipe, bank)) as trainer:
        loader = trainer.loader
        for kind in ("Mosaic", "Mixup", "Cutmix"):
            setattr(loader._dataset, f"{kind.lower()}_epoch", 2)
            assert [trainer._banking.taught(epoch) for epoch in range(4)] == [False, False, True, True]
            assert f"from epoch 1 on the live teacher stays: {kind} makes one image of several" in caplog.text
            setattr(loader._dataset, f"{kind.lower()}_epoch", -1)
        loader._dataset.mosaic_epoch = 2
        assert VIEW in next(loader.epoch(2))


def test_what_needs_the_teacher_in_every_step_keeps_it_by_name(recipe, tmp_path):
    loaded = banked(recipe, tmp_path / "own", family="yolox", method="PKD")
    with pytest.raises(UserError, match="keeps the live teacher: YOLOX draws a size of its images in every step"):
        fill_bank(loaded, (0, 1), False, None)
    with Trainer.open(loaded) as trainer:
        assert trainer.distill.asked.bank is None and trainer.loader.views is None
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("kind", [TeacherHead, Match])
def test_connectors_with_layers_of_the_teachers_and_images_without_labels_do_so_too(kind):
    term = SimpleNamespace(sublayers=lambda: [kind.__new__(kind)])
    model = SimpleNamespace(terms=[term, term], _student=Detector.__new__(Detector), student=None, _beside=True)
    assert DistillModel.bound.fget(model) == [
        f"connector {kind.__name__} works with layers of the teacher's own",
        "images without labels stand beside the batches",
    ]


def test_an_epoch_has_the_batches_of_its_view_in_an_order_of_its_own(recipe, bank):
    with Trainer.open(banked(recipe, bank)) as trainer:
        loader = trainer.loader
        names = [loader.names(epoch) for epoch in range(8)]
        seen = [[bytes(batch[VIEW].numpy()[:16]).hex() for batch in loader.epoch(epoch)] for epoch in (0, 2, 3)]
        loader.views = None
        plain = [batch["image"].numpy().tobytes() for batch in loader.epoch(1)]
        loader.views = 2
        assert [batch["image"].numpy().tobytes() for batch in loader.epoch(1)] == plain
        assert [VIEW in batch for batch in loader.epoch(5, only={0, 2})] == [True, True]
    assert seen == [names[0], names[2], names[3]]
    assert all(sorted(names[epoch]) == sorted(names[epoch % 2]) for epoch in range(8))
    assert len({tuple(names[epoch]) for epoch in (0, 2, 4, 6)}) > 1 and not set(names[0]) & set(names[1])


def test_images_are_seen_anew_where_no_term_is_on(recipe, tmp_path, monkeypatch, caplog):
    """Before the terms and after them a run has the batches that it has without a bank, and says when they end."""
    monkeypatch.setattr(logger(), "propagate", True)
    more = ["epoch=5", "distill.start_epoch=1", "distill.stop_epoch=4", "distill.hand_over=reset"]
    loaded = banked(recipe, tmp_path / "own", *more)

    def seen(trainer, epoch):
        batches = list(trainer._stages.batches(epoch))
        return [batch["image"].numpy().tobytes() for batch in batches], [VIEW in batch for batch in batches]

    with Trainer.open(loaded) as trainer:
        found = [seen(trainer, epoch) for epoch in range(5)]
        assert [trainer._banking.taught(epoch) for epoch in range(5)] == [False, True, True, True, False]
        # As ``stop: auto`` may end it before.
        monkeypatch.setattr(trainer.distill.distillation, "over", lambda term, epoch: epoch >= 3)
        assert [trainer._stages.loader(epoch).views for epoch in range(5)] == [None, 2, 2, None, None]
        trainer._stages.views = lambda epoch: None
        plain = [seen(trainer, epoch) for epoch in range(5)]
    assert [views for _, views in found] == [[epoch in (1, 2, 3)] * 3 for epoch in range(5)]
    assert [ours[0] == theirs[0] for ours, theirs in zip(found, plain)] == [True, True, False, False, True]
    assert sorted(found[1][0]) == sorted(found[3][0])
    fit(loaded)
    assert len(files(tmp_path / "own")) == 6 and "; after epoch 4 there are no views" in caplog.text


def test_a_run_that_lets_go_of_its_bank_resumes_to_the_bit(recipe, tmp_path):
    more = ["epoch=4", "distill.stop_epoch=2", "distill.hand_over=reset"]
    whole = fit(banked(recipe, tmp_path / "own", *more)).state()
    for options in ({"max_steps": 5}, {"max_steps": 8, "resume": "auto"}, {"resume": "auto"}):
        trainer = fit(banked(recipe, tmp_path / "own", *more, f"save_dir={tmp_path}/again"), **options)
    assert not set(differing(trainer.state(), whole)) - {"/ema/epoch"}


def test_a_record_has_what_terms_take_that_begin_later(recipe, tmp_path):
    later = "distill.terms.later={student: 'neck[*]', loss: pkd, student_connector: align, start_epoch: 2}"
    with Trainer.open(banked(recipe, tmp_path / "own", later)) as trainer:
        assert len(trainer.distill.banked) == 6 > len(trainer.distill.active_terms())
        assert trainer._banking.taught(0)


# A reader whose views come after the teacher has gone, and one that mixes images, which has none.
_RESIZE = "{Resize: {target_size: 64, keep_ratio: false}}"
_MIXES = f"mixup_epoch: 9, sample_transforms: [{{Decode: {{}}}}, {{Mixup: {{}}}}, {_RESIZE}]"


@pytest.mark.parametrize("reader, records", [("sample_transforms: [{Decode: {}}]", 9), (_MIXES, 6)])
def test_a_later_stage_gets_back_the_teacher_that_was_let_go(reader, records, recipe, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logger(), "propagate", True)
    more = ["epoch=4", f"stages=[{{epoch: 3, TrainReader: {{{reader}}}}}]"]
    trainer = fit(banked(recipe, tmp_path / "own", *more))
    text = caplog.text
    assert text.index("is in the bank, the teacher is let go") < text.index("the teacher comes back")
    assert len(files(tmp_path / "own")) == records and len(trainer.distill.asked) == 1
    assert len({line for line in caplog.messages if "batches there" in line}) == records // 3 - 1  # each reader's
    loaded = banked(recipe, tmp_path / "before", *more)
    assert fill_bank(loaded, (0, 1), False, None)[1:] == (records, 0)
    assert contents(tmp_path / "before") == contents(tmp_path / "own")
    assert [[*trainer._stages.rest(epoch, 4)] for epoch in (1, 3)] == [[1, 2], [3]]
    assert [VIEW in batch for batch in trainer._stages.batches(3)] == [records == 9] * 3


def test_a_run_resumed_after_its_terms_have_stopped_by_themselves_says_nothing_of_views(
    recipe, tmp_path, monkeypatch, caplog
):
    more = ["epoch=3", "distill.stop=auto"]
    former = LettingGo.over

    def over(self, epoch):
        if epoch == 1:
            self.gone.set_value(self.gone * 0 + 1)
        return former(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(LettingGo, "over", over)
        fit(banked(recipe, tmp_path / "own", *more), max_steps=7)
    monkeypatch.setattr(logger(), "propagate", True)
    caplog.clear()
    shutil.rmtree(tmp_path / "own")
    trainer = fit(banked(recipe, tmp_path / "own", *more), resume="auto")
    assert not trainer.distill.asked and not files(tmp_path / "own")
    assert "term fgd is over (stop: auto)" in caplog.text and "every view" not in caplog.text
    assert "batches there" not in caplog.text


def test_a_batch_of_bad_images_alone_does_not_keep_the_teacher(recipe, shapes, tmp_path):
    data = shutil.copytree(shapes, tmp_path / "data")
    bad = sorted((data / "train").iterdir())[:2]
    for image in bad:
        image.write_bytes(image.read_bytes()[:200])
    given = [f"dataset_dir={data}", "TrainReader.batch_size=2", "TrainReader.shuffle=false", "max_bad_images=50%"]
    trainer = fit(banked(recipe, tmp_path / "bank", *given))
    assert set(trainer._stages.bad.found) == {str(path) for path in bad}
    assert len(files(tmp_path / "bank")) == 2 * 5 and not len(trainer.distill.asked)
    assert fill_bank(banked(recipe, tmp_path / "bank", *given), (0, 1), False, None)[1:] == (0, 10)


def test_a_run_without_views_is_not_filled_in_silence(recipe, tmp_path):
    with pytest.raises(UserError, match=r"no epoch of this run \(3 epochs\) has views: no term is on in it"):
        fill_bank(banked(recipe, tmp_path / "own", "distill.start_epoch=9"), (0, 1), False, None)


@pytest.mark.parametrize("views, resumed, warned", [(3, False, True), (3, True, False), (2, False, False)])
def test_views_that_none_sees_twice_are_warned_of_once(views, resumed, warned, recipe, tmp_path, monkeypatch, caplog):
    loaded = banked(recipe, tmp_path / "own", f"distill.bank.views={views}")
    if resumed:
        fit(loaded, max_steps=4)
    monkeypatch.setattr(logger(), "propagate", True)
    caplog.clear()
    with Trainer.open(loaded, resume="auto" if resumed else None):
        assert (f"with {views} views in so many epochs none is seen twice" in caplog.text) == warned


@pytest.mark.parametrize("views, stop, told", [(1, 4, True), (1, 2, False), (4, 4, False)])
def test_views_that_last_to_the_end_are_told(views, stop, told, recipe, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logger(), "propagate", True)
    lines = [f"distill.bank.views={views}", "epoch=4", f"distill.stop_epoch={stop}"]
    with Trainer.open(banked(recipe, tmp_path / "own", *lines), resume=None):
        said = "; to the run's end, each 4 times: distill.stop_epoch ends them earlier" in caplog.text
        assert said == told
        assert ("; after epoch 2 there are no views" in caplog.text) == (stop == 2)


def test_a_bank_that_nobody_would_read_is_none(recipe, tmp_path, monkeypatch, caplog):
    """Three views in three epochs: of a folder of the run's own, which nobody has filled before."""
    monkeypatch.setattr(logger(), "propagate", True)
    given = ["distill.bank.views=3", f"save_dir={tmp_path}"]
    loaded = banked(recipe, "", *given, "distill.bank={views: 3}")
    trainer = fit(loaded)
    assert not list(tmp_path.rglob("*.view")) and not list(tmp_path.rglob("bank.json"))
    why = "with 3 views in 3 epochs with a teacher none would be seen twice"
    assert f"distill.bank: none; the teacher is asked in every step: {why}" in caplog.text
    assert differing(trainer.state(), fit(recipe(QUICK, "fgd", overrides=_GIVEN[:-2] + _GIVEN[-1:])).state()) == [
        "/digest/distill.bank.views"
    ]
    fill_bank(loaded, (0, 1), None, lambda batches, text, total: batches)
    with Trainer.open(loaded) as again:
        assert not again.distill.teachers, "others have filled it"


@pytest.mark.parametrize("failure", ["live", "stop"])
def test_a_former_runs_own_bank_makes_place_where_the_teacher_may_go_on(failure, recipe, tmp_path, monkeypatch, caplog):
    """By default it is there after a run that was ended, and every later one in this folder would have had none."""
    monkeypatch.setattr(logger(), "propagate", True)
    given = [f"save_dir={tmp_path}", f"distill.bank={{views: 2, on_failure: {failure}}}"]
    fit(banked(recipe, "", *given), max_steps=2)
    other = banked(recipe, "", *given, "seed=5")
    place = pathlib.Path(other.output_dir) / "bank"
    former = files(place)
    if failure == "stop":
        with pytest.raises(UserError, match="the bank is of something else .*seed"):
            fit(other)
        assert files(place) == former
        return
    fit(other, max_steps=3)
    assert f"bank: {place} had one of something else, of a former run: it is removed" in caplog.text
    assert len(files(place)) == 3 and not set(former) & set(files(place))


def test_a_full_bank_is_read_although_it_is_above_the_limit(recipe, bank):
    with Trainer.open(banked(recipe, bank, "distill.bank.gigabytes=1e-6")) as trainer:
        assert trainer.distill.teachers == {}


def test_who_is_ended_while_a_bank_is_removed_leaves_one_that_can_be_read(recipe, bank, monkeypatch):
    trainer = fit(banked(recipe, bank), max_steps=1)
    (bank / ".half.view.ppkd-0123456789ab").write_text("of a process that was killed")
    removed, remove = [], os.remove

    def ended(path):
        if len(removed) == 3:
            raise KeyboardInterrupt
        removed.append(path)
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "remove", ended)
        with pytest.raises(KeyboardInterrupt):
            trainer._banking.bank.remove()
    assert (bank / "bank.json").exists()
    trainer._banking.bank.remove()
    assert not bank.exists() and trainer._banking.bank.remove() == 0


@pytest.mark.parametrize("ends", ["whole", "patience", "cut short"])
def test_a_run_removes_its_own_bank_when_it_has_ended(ends, recipe, filled, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logger(), "propagate", True)
    loaded = banked(recipe, "", f"save_dir={tmp_path}", "distill.bank={views: 2}")
    place = pathlib.Path(loaded.output_dir) / "bank"
    if ends == "patience":
        monkeypatch.setattr(Patience, "over", lambda self: len(files(place)) == 3)
    trainer = fit(loaded, **({"max_steps": 4} if ends == "cut short" else {}))
    if ends == "cut short":
        assert len(files(place)) == 4
        (place / "of the user.txt").write_text("")
        trainer = fit(loaded, resume="auto")
        assert [path.name for path in place.iterdir()] == ["of the user.txt"]
    else:
        assert not place.exists()
    if ends != "patience":
        assert other_than(trainer, filled) <= {"/digest/distill.bank.folder"}
    assert re.search(r"the run has ended, its [0-9.]+ kB are removed \(distill.bank.folder keeps one\)", caplog.text)


@pytest.mark.parametrize("most, has", [(1, True), (1e-6, False)])
def test_a_bank_that_is_too_large_is_none(most, has, recipe, filled, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logger(), "propagate", True)
    given = (recipe, tmp_path / "own", f"distill.bank.gigabytes={most}")
    live = banked(*given, "distill.bank.on_failure=live")
    if has:
        trainer = fit(live)
        assert len(files(tmp_path / "own")) == 6
        assert other_than(trainer, filled) <= {"/digest/distill.bank.gigabytes", "/digest/distill.bank.on_failure"}
        return
    assert len(fit(live, max_steps=1).distill.teachers) == 1 and not (tmp_path / "own").exists()
    told = "2 views would take about .* kB, more than distill.bank.gigabytes has: 1e-06; raise it, or have fewer views"
    assert re.search(f"none; the teacher is asked in every step: {told}", caplog.text)
    with pytest.raises(UserError, match=f"^distill.bank: {told}; on_failure: live goes on without$"):
        fit(banked(*given))
    with pytest.raises(UserError, match=f"^bank: {told}$"):
        fill_bank(live, (0, 1), None, None)


def test_the_limit_is_of_what_all_ranks_take(recipe, tmp_path, monkeypatch):
    """Each has a share of the images, and one that went on with a bank beside one without would be another run."""
    with Trainer.open(banked(recipe, tmp_path / "own")) as trainer:
        model, stages = trainer.distill, trainer._stages
        of_one = [model, stages, Precision(trainer.recipe.student, None), epochs_of_views(model, stages, 3)]
        asked = []
        monkeypatch.setattr(bank_size, "gathered", lambda size: asked.append(size) or [size, 3 * size])
        assert not too_large(SimpleNamespace(views=2, dtype="float16", gigabytes=1), *of_one) and not asked
        monkeypatch.setattr(bank_size.dist, "get_world_size", lambda: 2)
        assert not too_large(SimpleNamespace(views=2, dtype="float16", gigabytes=1), *of_one)
        for share, refused in ((4.1, False), (3.9, True)):
            limit = SimpleNamespace(views=2, dtype="float16", gigabytes=share * asked[0] / 1e9)
            assert bool(too_large(limit, *of_one)) == refused


def test_what_a_bank_is_said_to_take_is_what_it_takes(recipe, bank, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logger(), "propagate", True)
    fit(banked(recipe, tmp_path / "own", "distill.bank.gigabytes=1e-6", "distill.bank.on_failure=live"), max_steps=1)
    told = float(re.search("would take about ([0-9.]+) kB", caplog.text)[1]) * 1000
    sizes = [path.stat().st_size for path in files(bank)]
    assert len(sizes) * min(sizes) < told < len(sizes) * max(sizes)


@pytest.mark.parametrize("live", [True, False])
def test_the_end_of_a_disk_is_left_to_checkpoints(live, recipe, tmp_path, monkeypatch):
    """It was filled to the last byte, and then nothing else could be saved."""
    spaces = iter([1 << 40] * 3)  # of what is told before, and of two records
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(spaces, (1 << 28) - 1)))
    loaded = banked(recipe, tmp_path / "own", *(["distill.bank.on_failure=live"] if live else []))
    if live:
        fit(loaded)
    else:
        with pytest.raises(UserError, match="own: the disk is nearly full, its last 256 MiB are left alone.*--resume"):
            fit(loaded)
    assert len(files(tmp_path / "own")) == 2


# Heads, a teacher's side that is connected before it is kept, and targets that the teacher assigns.
@pytest.mark.parametrize("family, method", [("yolov3", "yolov3"), (QUICK, "ppyoloe")])
def test_other_methods_read_what_was_kept(family, method, recipe, tmp_path):
    given = ["epoch=1", "distill.bank.views=1", "PPYOLOEHead.static_assigner_epoch=0"][: 3 if family == QUICK else 2]
    states = []
    for _ in range(2):
        with Trainer.open(banked(recipe, tmp_path / "own", *given, family=family, method=method)) as trainer:
            there = bool(trainer.distill.teachers)
            trainer.run()
        states.append(trainer.state())
    assert not there and not differing(*states) and len(files(tmp_path / "own")) == 3
    arrays = records.read_record(files(tmp_path / "own")[0], trainer._banking.bank._seal)[1]
    assert any(name.startswith("assigned ") for name in arrays) == (family == QUICK)
    assert any(name.endswith("] standardise") for name in arrays) == (family != "yolov3")
