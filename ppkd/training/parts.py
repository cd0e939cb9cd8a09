"""The parts of a run that have a state, each with the verbs ``state()`` and ``restore(state)``."""

from ppkd.errors import UserError


class Parts(dict):
    """Parts by their names in a resume file, in the order of restoring."""

    def state(self):
        """What resuming needs, by the same names."""
        return {name: part.state() for name, part in self.items()}

    def restore(self, state):
        """Go on as `state` was; a part that it has nothing of, since it is older than the part, gets None.

        Raises:
            UserError: a part's own, or what is there is of another kind than was ever written.
        """
        for name, part in self.items():
            try:
                part.restore(state.get(name))
            except (UserError, OSError):
                raise
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise UserError(f"-r: {name} in the resume file is none of this run's ({reason})") from error
