"""What a run leaves beside its checkpoints: metrics.jsonl, recipe.yml and, if asked for, the logs of trackers."""

import json
import os

from ppkd.errors import UserError
from ppkd.files.regular import open_file
from ppkd.files.write import append, remove_leftovers, write_text
from ppkd.training.record import FILE, record
from ppkd.training.records import readable
from ppkd.training.trackers import VisualDL, open_trackers


class RunLog:
    """Writes the records of a run, from its first process only.

    Args:
        folder: the output folder; made if there is none.
        recipe: `recipe.Recipe`; ``recipe.yml`` is what it comes to.
        writes: whether this is the process that writes.
        names: of the classes, or None.
        vdl_dir: folder for VisualDL's log, or None.
        trackers: names in `trackers.NAMES`.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    def __init__(self, folder, recipe, writes, vdl_dir=None, names=None, trackers=()):
        self._path, self._writes, self._trackers = os.path.join(folder, "metrics.jsonl"), writes, []
        if not writes:
            return
        try:
            os.makedirs(folder, exist_ok=True)
            remove_leftovers(folder)
        except OSError as error:
            raise UserError(
                f"the output folder {folder} is not writable: {error}. Choose another with -o save_dir=..."
            ) from error
        # Before the record, which would be that of a run which did not begin.
        self._trackers = [VisualDL(vdl_dir)] if vdl_dir else []
        self._trackers += open_trackers(trackers, folder, recipe)
        write_text(os.path.join(folder, FILE), record(recipe, names))

    def add(self, record):
        """Append a record: a dict of plain values with ``kind`` and ``step``.

        Raises:
            UserError: the disk is full.
        """
        if not self._writes:
            return
        append(self._path, json.dumps(record) + "\n", "; checkpoints are untouched")
        for tracker in self._trackers:
            tracker.add(record)

    def close(self):
        """No record comes any more."""
        for tracker in self._trackers:
            tracker.close()

    def rewind(self, step):
        """Forget what was recorded after the step that a run begins at, -1 for a new one: it will be recorded anew.

        An evaluation at that step goes as well, since it is repeated. A line that was cut off by a kill is dropped.
        """
        if not self._writes or not os.path.exists(self._path):
            return
        try:
            with open_file(self._path, encoding="utf-8") as file:
                kept = [line for line in file if _belongs(line, step)]
        except OSError as error:
            raise UserError(f"{self._path}: cannot be read: {error}") from error
        write_text(self._path, "".join(kept))


def _belongs(line, step):
    record = readable(line, whole=False)
    return record is not None and (
        record["step"] < step or (record["step"] == step and record["kind"] == "train")
    )
