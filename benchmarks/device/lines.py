"""A line of the check of a device: what was looked at, and what came of it."""

import dataclasses
import time

OK, FAILED, MISSED, NOT_ON_CPU, NOT_HERE = "ok", "FAILED", "TARGET MISSED", "not on a CPU", "not here"


@dataclasses.dataclass
class Line:
    """One thing that was checked.

    Attributes:
        name: unique.
        verdict: `OK`; `FAILED`, what does not work; `MISSED`, what works and is slower or larger than it should be;
            `NOT_ON_CPU` or `NOT_HERE` for what this machine cannot show.
        detail: in words, with the target beside what was measured.
        numbers: what was measured, plain values by name.
        seconds: that it took.
    """

    name: str
    verdict: str
    detail: str = ""
    numbers: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


def tried(name, function, *args):
    """The `Line` that `function` gives as ``(whether it is right, detail, numbers)``, or one with what it raised.

    A function may also give a verdict itself in place of the first.
    """
    begin = time.perf_counter()
    try:
        right, detail, numbers = function(*args)
    except (Exception, SystemExit) as error:  # whatever a device meets: the other lines have to come all the same
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = next((line for line in lines if "Error:" in line), lines[-1] if lines else "")
        right, detail, numbers = False, f"{type(error).__name__}: {told}"[:400], {}
    verdict = right if isinstance(right, str) else OK if right else FAILED
    return Line(name, verdict, detail, numbers, round(time.perf_counter() - begin, 2))


def table(lines):
    """Lines as aligned text."""
    rows = [("check", "verdict", "took", "what was found")]
    rows += [(line.name, line.verdict, f"{line.seconds:.1f} s", line.detail) for line in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in rows)
