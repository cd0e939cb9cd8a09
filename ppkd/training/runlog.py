"""What a run leaves beside its checkpoints: metrics.jsonl, recipe.yml and, if asked for, VisualDL's log."""

import json
import os

from ppkd.errors import UserError
from ppkd.training.checkpoint import remove_leftovers
from ppkd.training.record import FILE, record


class RunLog:
    """Writes the records of a run, from its first process only.

    Args:
        folder: the output folder; made if there is none.
        recipe: `recipe.Recipe`; ``recipe.yml`` is what it comes to.
        writes: whether this is the process that writes.
        vdl_dir: folder for VisualDL's log, or None.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    def __init__(self, folder, recipe, writes, vdl_dir=None):
        self._path, self._writes, self._vdl = os.path.join(folder, "metrics.jsonl"), writes, None
        if not writes:
            return
        try:
            os.makedirs(folder, exist_ok=True)
            remove_leftovers(folder)
            with open(os.path.join(folder, FILE), "w", encoding="utf-8") as file:
                file.write(record(recipe))
        except OSError as error:
            raise UserError(
                f"the output folder {folder} is not writable: {error}. Choose another with -o save_dir=..."
            ) from error
        if vdl_dir:
            from visualdl import LogWriter

            self._vdl = LogWriter(vdl_dir)

    def add(self, record):
        """Append a record: a dict of plain values with ``kind`` and ``step``.

        Raises:
            UserError: the disk is full.
        """
        if not self._writes:
            return
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written: {error}; checkpoints are untouched") from error
        if self._vdl is not None:
            for key, value in record.items():
                if isinstance(value, (int, float)) and key not in ("step", "epoch"):
                    self._vdl.add_scalar(f"{record['kind']}/{key}", value, record["step"])

    def rewind(self, step):
        """Forget what was recorded after the step that a run begins at, -1 for a new one: it will be recorded anew.

        An evaluation at that step goes as well, since it is repeated. A line that was cut off by a kill is dropped.
        """
        if not self._writes or not os.path.exists(self._path):
            return
        with open(self._path, encoding="utf-8") as file:
            kept = [line for line in file if _belongs(line, step)]
        temporary = f"{self._path}.tmp{os.getpid()}"
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(kept)
        os.replace(temporary, self._path)


def _belongs(line, step):
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return record["step"] < step or (record["step"] == step and record["kind"] == "train")
