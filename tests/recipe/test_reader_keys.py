"""A reader's key that nothing reads is said: ppdet's readers take any, and train as if it weren't there."""

import inspect

import pytest

from ppkd.errors import UserError
from ppkd.recipe import reader_keys
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS

STUDENT, SLIM = str(CONFIGS / "retinanet_tiny.yml"), str(CONFIGS / "retinanet_fgd.yml")


@pytest.mark.parametrize(
    "given, told",
    [
        ("TrainReader.batch_sizee=4", "-o: TrainReader has no key 'batch_sizee'; nearest: batch_size"),
        ("EvalReader.Batch_Size=4", "-o: EvalReader has no key 'Batch_Size'; nearest: batch_size"),
        ("TrainReader.mixup_epochs=4", "-o: TrainReader has no key 'mixup_epochs'; nearest: mixup_epoch"),
        ("TestReader.sample_transform=[]", "-o: TestReader has no key 'sample_transform'; nearest: sample_transforms"),
        ("UnlabelledReader.shufle=true", "-o: UnlabelledReader has no key 'shufle'; nearest: shuffle"),
        ("UnlabelledReader.stronger=[]", "-o: UnlabelledReader has no key 'stronger'; nearest: strong"),
        ("stages=[{epoch: 2, TrainReader: {drop_lasst: true}}]",
         "-o: stages: TrainReader from epoch 2 on has no key 'drop_lasst'; nearest: drop_last"),
    ],
)  # fmt: skip
def test_a_typing_error_is_refused(given, told):
    with pytest.raises(UserError) as error:
        load_recipe(STUDENT, SLIM, [given])
    assert str(error.value).startswith(told)


def test_another_key_is_told_for_a_data_set_of_ones_own_may_read_it(shapes):
    given = ["TrainReader.rotate_until=4", "TrainReader.mosaic_epoch=3", "UnlabelledReader.strong=[]"]
    recipe = load_recipe(STUDENT, overrides=[f"dataset_dir={shapes}", *given])
    assert [note for note in recipe.notes if "Reader" in note] == [
        "-o: TrainReader has 'rotate_until', which nothing in ppdet reads"
    ]


def test_all_that_this_ppdet_reads_is_known():
    from ppdet.data import reader
    from ppdet.data.source.dataset import DetDataset

    classes = [reader.BaseDataLoader, reader.TrainReader, reader.EvalReader, reader.TestReader]
    taken = {name for each in classes for name in inspect.signature(each.__init__).parameters} - {"self", "kwargs"}
    dataset = DetDataset()
    DetDataset.set_kwargs(dataset)
    read = inspect.getsource(DetDataset.set_kwargs)
    of_data_sets = {name for name in vars(dataset) if f"kwargs.get('{name}'" in read}
    assert len(of_data_sets) >= 3
    assert taken | of_data_sets <= reader_keys._KNOWN
