"""When something that is made of many batches is made anew."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Updates:
    """Updates after 0, `every`, 2 `every`, ... batches, from `until` on at multiples of `later` only.

    Each looks at `track` batches, the first of them being that at which it begins, and then has its result. The very
    first one has to have a result from its first batch on, so it has one after 1, 2, 4, 8, ... of them.

    Args:
        every, until, later, track: in batches.

    Raises:
        ValueError: a number below 1 (`until`: below 0), or updates that begin before the one before has ended.
    """

    every: int = 5000
    until: int = 20000
    later: int = 31000
    track: int = 1000

    def __post_init__(self):
        least = {"every": 1, "until": 0, "later": 1, "track": 1}
        for name, number in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < number:
                raise ValueError(f"{name} is {value!r}, expected a number of batches from {number}")
        for name in ("every", "later"):
            if self.track > getattr(self, name):
                raise ValueError(f"track is {self.track}, expected no more than {name}, {getattr(self, name)}")

    def begin(self, age):
        """After how many batches the update begins that is the last one at `age` or before."""
        early = min(age, self.until - 1) // self.every * self.every if self.until else 0
        late = age // self.later * self.later
        return late if late >= self.until else early

    def looks(self, age):
        """Whether the update that `age` belongs to looks at this batch."""
        return age - self.begin(age) < self.track

    def early(self, age):
        """Whether there is a result after this batch although the update goes on."""
        seen = age + 1
        return self.begin(age) == 0 and seen < self.track and seen & (seen - 1) == 0

    def over(self, age):
        """Whether this batch is the last that the update looks at, or a later one."""
        return age - self.begin(age) >= self.track - 1
