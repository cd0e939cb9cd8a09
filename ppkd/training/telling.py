"""What a run says of its steps: lines in the log, records in its file."""

from ppkd.terminal.log import logger
from ppkd.training.meters import Meters


class Telling:
    """Tells how a run stands.

    Args:
        log: `runlog.RunLog`.
        standing: `standing.Standing`.
        epochs: of the whole run.
        rate: function to the learning rate of the next step.
        aloud: whether this process writes into the log, as the first one does.
    """

    def __init__(self, log, standing, epochs, rate, aloud):
        self._log, self._standing, self._epochs, self._rate, self._aloud = log, standing, epochs, rate, aloud

    def report(self, found, counts):
        """Log the mean of the steps since the last time, and record it.

        Args:
            found: what the meters and other parts have read, by name.
            counts: of what was left out or taken beside, by name; those that are 0 are not told.
        """
        at = {"kind": "train", "epoch": self._standing.epoch, "step": self._standing.step}
        self._log.add(self.tell(at | found | {name: number for name, number in counts.items() if number}))

    def tell(self, record):
        """Log a record, and return it with the learning rate."""
        at = self._standing
        record["lr"] = self._rate()
        where = f"epoch {at.epoch + 1}/{self._epochs} step {at.steps_of_epoch}/{at.steps}"
        for line in Meters.lines(record, where) if self._aloud else ():
            logger().info(line)
        return record
