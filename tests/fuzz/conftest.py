"""Fuzz tests: a few inputs of each kind in every run of the tests, more than 200,000 with

    python -m pytest tests/fuzz --hypothesis-profile=long

`inputs.SHARES` says how many of each kind; FUZZ_SCALE=0.1 makes it a tenth of them.
"""

import codecs
import contextlib
import sys

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzz import inputs

_COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("short", max_examples=60, derandomize=True, **_COMMON)
settings.register_profile("long", print_blob=True, **_COMMON)
settings.load_profile("short")


def pytest_configure(config):
    inputs.LONG = config.getoption("--hypothesis-profile") == "long"


def pytest_terminal_summary(terminalreporter):
    if inputs.LONG:
        terminalreporter.write_sep("-", "inputs")
        terminalreporter.write_line("\n".join(inputs.summary()))


def pytest_collection_modifyitems(items):
    """A long run takes as long as it takes; each input is bounded by `inputs`."""
    for item in items:
        item.add_marker(pytest.mark.timeout(0))


# What Python reports when something runs that no weight or config file may cause.
_RUNS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "exec", "compile",
         "pickle.find_class", "os.remove", "os.rename", "os.mkdir", "shutil.", "socket.", "ctypes.", "marshal.",
         "code.__new__")  # fmt: skip


# What JSON's reader decodes by is imported where a text is the first of its encoding: no code of the file's.
for _name in ("utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be", "utf-32-le"):
    codecs.lookup(_name)


class _Watch:
    on = False

    def __call__(self, event, args):
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if self.on and (writes or event.startswith(_RUNS)):
            self.seen.append((event, repr(args)[:200]))

    @contextlib.contextmanager
    def quiet(self):
        """A block in which no code may be run and no file be written."""
        self.seen, self.on = [], True
        try:
            yield
        finally:
            self.on = False
        assert not self.seen, self.seen


_watch = _Watch()
sys.addaudithook(_watch)


@pytest.fixture(scope="session")
def quiet():
    """A context manager in which no code may be run and no file be written, by whatever way."""
    return _watch.quiet
