"""Paddle's in-process loader waits for ever when reading a sample fails."""

from ppkd.bridge.compat.looks import NOT_NEEDED, says

_MARK = "patched_by_ppkd"


def raise_errors_of_the_loading_thread():
    """Let a DataLoader without workers raise what reading a sample raised.

    The exception ends the loading thread without closing its queue, and the training loop waits for a batch that never
    comes: one broken image would hang a run.

    Needed for: Paddle 2.6 and 3.3, ``num_workers=0``.
    """
    from paddle.io.dataloader.dataloader_iter import _DataLoaderIterSingleProcess as Iterator

    if hasattr(Iterator, _MARK):
        return
    # Around the reading of samples the end of the data is caught, and nothing else.
    if not says(Iterator._thread_loop, r"except StopIteration:\s+self\._exit_thread_expectedly\(\)\s+return\s+if "):
        return NOT_NEEDED
    loop, following = Iterator._thread_loop, Iterator.__next__

    def thread_loop(self, place):
        try:
            loop(self, place)
        except Exception as error:
            self.ppkd_error = error
            self._exit_thread_unexpectedly()

    def next_or_raise(self):
        try:
            return following(self)
        except SystemError:
            if getattr(self, "ppkd_error", None) is not None:
                raise self.ppkd_error from None
            raise

    Iterator._thread_loop, Iterator.__next__ = thread_loop, next_or_raise
    setattr(Iterator, _MARK, (loop, following))
