"""The one place in which the way is changed that ppdet's readers begin to load."""

import contextlib


@contextlib.contextmanager
def begun_by(begin):
    """A block in which ppdet's readers begin to load by way of `begin`.

    Args:
        begin: is called with what begins in its place, the reader, and what ppdet hands the reader: data set, number of
            workers, sampler of batches (or nothing), and options by name. Hands back what the former hands back.
    """
    from ppdet.data.reader import BaseDataLoader

    former = BaseDataLoader.__call__

    def __call__(self, *args, **options):
        return begin(former, self, *args, **options)

    BaseDataLoader.__call__ = __call__
    try:
        yield
    finally:
        BaseDataLoader.__call__ = former
