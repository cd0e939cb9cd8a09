"""A row of the table of speed and memory."""

import dataclasses

COLUMNS = ("name", "ours_s", "ppdet_s", "ideal_s", "ratio", "target", "ours_mb", "ppdet_mb")


@dataclasses.dataclass
class Row:
    """What was measured; None where a column has no meaning.

    Attributes:
        name: unique.
        ours_s, ppdet_s: seconds of ours and of ppdet's own distillation.
        ideal_s: seconds of what cannot be avoided.
        ratio: what the target speaks of.
        target: such as ``>= 6`` or ``<= 1.08``.
        ours_mb, ppdet_mb: megabytes.
        note: what `ratio` is, or why something is missing.
    """

    name: str
    ours_s: float | None = None
    ppdet_s: float | None = None
    ideal_s: float | None = None
    ratio: float | None = None
    target: str | None = None
    ours_mb: float | None = None
    ppdet_mb: float | None = None
    note: str = ""

    @property
    def met(self):
        """Whether the target is met, or None without one."""
        if self.target is None or self.ratio is None:
            return None
        sign, limit = self.target.split()
        return self.ratio >= float(limit) if sign == ">=" else self.ratio <= float(limit)


def table(rows):
    """Rows as plain text, aligned."""
    from ppkd.terminal.table import text_table

    lines = [[*COLUMNS, "met", "note"]]
    for row in rows:
        met = {None: "", True: "yes", False: "no"}[row.met]
        lines.append([*(_shown(getattr(row, key)) for key in COLUMNS), met, row.note])
    return text_table(lines)


def _shown(value):
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
