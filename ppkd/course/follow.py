"""Runs the parts of a course and tells how far it is: the part, and the time left of the whole."""

import contextlib
import os
import signal
import sys
import threading
import time

from ppkd.course.process import start, tail
from ppkd.course.told import error_names
from ppkd.errors import UserError
from ppkd.files.lock import is_held
from ppkd.terminal.log import duration, logger
from ppkd.training.records import readable

_EVERY = 15
# Seconds that a run has to save itself, of which the slowest step is most.
_ENDING = 120
_ERROR = "ppkd: error: "


class Follower:
    """Runs parts one after the other.

    Args:
        folder: of the course; what a part prints goes into ``log/NAME.txt`` there.
        parts: all of them.
        done: names of those that are done already.
    """

    def __init__(self, folder, parts, done):
        self._folder = folder
        self._left = {part.name: part.cost for part in parts if part.name not in done}
        self._spent = self._paid = 0.0
        self._seen = 0.0, 0.0  # share of the running part, and the seconds after which it was first seen

    def run(self, part, place, note=lambda seconds: None):
        """Run one and wait for it.

        Args:
            part: `parts.Part`.
            place: text in front of the lines.
            note: is called with the seconds so far now and then, since nobody is told of a kill.

        Returns:
            Seconds.

        Raises:
            UserError: it failed, or did not make what it is for.
        """
        log = self._log(part)
        _let_end(part)
        if part.examines and os.path.isfile(part.makes):
            os.remove(part.makes)  # what is told of a failure is of this call
        begin = shown = time.time()
        before = self._progress(part)
        self._seen = before, 0.0
        with _sigterm_is_told():
            process = start(part.words, log, append=part.run is not None)
            try:
                while process.poll() is None:
                    time.sleep(0.2)
                    if time.time() - shown > _EVERY:
                        shown = time.time()
                        note(shown - begin)
                        self._tell(part, place, shown - begin, before)
            finally:
                if process.poll() is None:
                    logger().info("%s is asked to stop, and saves itself; the same command goes on here", part.title)
                    process.terminate()
                    process.wait()
        if process.returncode:
            why = f"{part.title} failed: {_why(log)}"
            raise UserError(f"{why} (log: {log}). The same command {_how_on(part)}")
        if not os.path.exists(part.makes):
            raise UserError(f"{part.title} ended without {part.makes} (log: {log})")
        seconds = time.time() - begin
        if part.run:  # by trainings alone the others are reckoned: they take the most
            self._spent, self._paid = self._spent + seconds, self._paid + (1 - before) * part.cost
        del self._left[part.name]
        logger().info("%s done in %s%s%s", place, duration(seconds), _result(part), self._whole())
        return seconds

    def _log(self, part):
        return os.path.join(self._folder, "log", f"{part.name}.txt")

    def _tell(self, part, place, seconds, before):
        share, records = self._progress(part), _records(part)
        if share != self._seen[0]:
            self._seen = share, seconds
        since = seconds - self._seen[1]  # of which no record says anything yet
        train = [record for record in records if record.get("kind") == "train"]
        where = _place(train[-1]) if train else f"at work for {duration(seconds)}; what it prints: {self._log(part)}"
        left = f", {duration(max(0.0, train[-1]['seconds_left'] - since))} left of it" if train else ""
        now = (seconds - since, (share - before) * part.cost) if share > before else (0.0, 0.0)
        logger().info("%s %s%s%s%s", place, where, _result(part), left, self._whole(*now, share * part.cost))

    def _whole(self, seconds=0.0, paid=0.0, done=0.0):
        """The time left of all parts, by what a unit of cost took in trainings; nothing before one is on its way.

        Args:
            seconds, paid: of the training that runs.
            done: of the part that runs, in units of cost.
        """
        left, paid = sum(self._left.values()) - done, self._paid + paid
        if paid <= 0 or left <= 0:
            return ""
        return f"; about {duration((self._spent + seconds) / paid * left)} left of all"

    @staticmethod
    def _progress(part):
        """The share of a training that is done, by its own records."""
        train = [record for record in _records(part) if record.get("kind") == "train"]
        whole = _steps(train[-1]) if train else 0
        return train[-1]["step"] / whole if whole else 0.0


@contextlib.contextmanager
def _sigterm_is_told():
    """A block in which SIGTERM ends this process as Ctrl-C does, with what has to be done before."""
    if threading.current_thread() is not threading.main_thread():  # where Python takes no handlers
        yield
        return
    former = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former if former is not None else signal.SIG_DFL)


def _steps(record):
    """How many steps a run has in all, by a record of its own; 0 where that does not say it."""
    each = record.get("seconds_per_step")
    return record["step"] + record["seconds_left"] / each if each else 0


def _place(record):
    whole = round(_steps(record))
    return f"epoch {record['epoch'] + 1}" + (f", step {record['step']} of {whole}" if whole else "")


def _records(part):
    path = part.run and os.path.join(part.run, "metrics.jsonl")
    if not path or not os.path.exists(path):
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        return [record for line in file if (record := readable(line)) is not None]


def _result(part):
    found = [record["AP"] for record in _records(part) if record.get("kind") == "eval" and "AP" in record]
    return f", AP {100 * found[-1]:.1f} (best {100 * max(found):.1f})" if found else ""


def _let_end(part):
    """Where an earlier call was killed, its run is saving itself: going on waits for it, for a while."""
    limit = time.time() + _ENDING
    if part.run and is_held(part.run):
        logger().info("%s: a process of an earlier call is still ending", part.title)
        while is_held(part.run) and time.time() < limit:
            time.sleep(0.2)


def _how_on(part):
    """An examination would only fail again."""
    names = error_names(part.makes) if part.examines else []
    return f"with --waive {','.join(names)} goes on all the same" if names else "goes on from here"


def _why(log):
    lines = tail(log).splitlines()
    told = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return told[-1] if told else " / ".join(lines[-3:]) or "it said nothing"
