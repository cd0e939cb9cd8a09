"""A run that is asked to stop finishes its step and saves itself."""

import os
import signal
import sys
import threading

from ppkd.terminal.log import logger

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A run was asked to stop, and has saved itself.

    Attributes:
        signal: number of the signal.
        checkpoint: path of what it saved, without suffix.
    """

    def __init__(self, signal_number, checkpoint):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; go on with -r {checkpoint}")
        self.signal, self.checkpoint = signal_number, checkpoint


class StopRequest:
    """Inside the ``with`` block the first SIGINT or SIGTERM only sets `signal`; a second one ends the process.

    Several processes do not stop at the same step by themselves, and one that has left makes the others wait: there a
    signal ends the process at once, and the launcher ends the others.

    Args:
        alone: whether this is the only process.

    Attributes:
        signal: number of the signal that came, or None.
    """

    def __init__(self, alone):
        self.signal = None
        self._alone, self._owner, self._former = alone, os.getpid(), {}

    def __enter__(self):
        # Outside of the main thread, as in some notebooks, Python takes no handlers.
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._asked) for number in _SIGNALS}
        return self

    def __exit__(self, *exception):
        for number, handler in self._former.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _asked(self, number, frame):
        if os.getpid() != self._owner:  # a loading process, made by this one
            os._exit(128 + number)
        if self.signal is not None or not self._alone:
            print(f"ppkd: ended by {signal.Signals(number).name}", file=sys.stderr, flush=True)
            os._exit(128 + number)
        self.signal = number
        logger().info("%s: finishing this step and saving; once more ends at once", signal.Signals(number).name)
