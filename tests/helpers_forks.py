"""Processes that run a tool without the seconds of importing Paddle: forked from one that has imported everything.

    helpers_forks.py ADDRESS PYTHON             the server; it never runs an operator itself
    PYTHON [-m MODULE | SCRIPT] ARGUMENTS       what stands in for the Python that children are started with

The server ends with the process that started it. What is forked has the environment, folder and streams of the one
that asked, runs ``__main__`` as a new process would, and has its signals and its end. Not for tests of how a process
starts, nor for those with an environment that is read while something is imported, such as another ``HOME``.
"""

import array
import atexit
import json
import os
import runpy
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading

_STAND_IN = """#!{python} -ISE
import array, json, os, signal, socket, sys
if len(sys.argv) < 2 or (sys.argv[1].startswith("-") and sys.argv[1] not in ("-m", "-u")):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
words = sys.argv[2:] if sys.argv[1] == "-u" else sys.argv[1:]
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
asked = json.dumps([words, os.getcwd(), dict(os.environ)]).encode() + b"\\n"
server.sendmsg([asked[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
server.sendall(asked[1:])
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: server.sendall(bytes([number])))
code = int(server.recv(16) or b"-9")
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Forks:
    """A server, started with the first process that is asked for.

    Args:
        folder: ``pathlib.Path`` of an empty folder.
    """

    def __init__(self, folder):
        self._python, self._server = folder / "python", None

    def python(self):
        """The path of what stands in for Python; its server is started if it is not there yet."""
        if self._server is None:
            # Of no file: the name of one may be no longer than 107 bytes.
            address = f"\0ppkd-tests-{secrets.token_hex(8)}"
            self._python.write_text(_STAND_IN.format(python=sys.executable, path=address))
            self._python.chmod(0o700)
            command = [sys.executable, __file__, address[1:], str(self._python)]
            streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._server = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **streams)
            assert "ready\n" in self._server.stdout  # after what ppdet prints
        return str(self._python)

    def close(self):
        """End the server, whoever else has its pipes: processes that load, forked meanwhile and left by a test."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()


def serve(address):
    """Fork until standard input ends, and end; in a forked process, the words of its command line are returned."""
    import ppkd  # noqa: I001  # before paddle
    import ppdet.engine  # noqa: F401
    import ppkd.api
    import ppkd.cli
    import ppkd.commands
    import ppkd.course.process
    import ppkd.training.trainer  # noqa: F401

    listening = socket.socket(socket.AF_UNIX)
    listening.bind("\0" + address)
    listening.listen(64)
    attending = set()
    print("ready", flush=True)
    while listening in select.select([listening, 0], [], [])[0]:
        asking = listening.accept()[0]
        if (process := os.fork()) == 0:
            listening.close()
            return attend(asking)
        asking.close()
        attending = {each for each in (*attending, process) if os.waitpid(each, os.WNOHANG)[0] == 0}
    os._exit(0)


def attend(asking):
    """Fork what is asked for, where the words of its command line are returned.

    The process between stays until its end, which it tells, passes signals on, and ends it when who asked has gone.
    """
    text, more, *_ = asking.recvmsg(1, socket.CMSG_SPACE(12))
    streams = array.array("i", more[0][2])
    while not text.endswith(b"\n"):
        text += asking.recv(65536)
    words, folder, environment = json.loads(text)
    child = os.fork()
    if child == 0:
        asking.close()
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        return words
    for stream in (0, 1, 2, *streams):
        os.close(stream)
    ended = os.pidfd_open(child)
    while ended not in (ready := select.select([asking, ended], [], [])[0]):
        told = asking.recv(1) if ready else b""
        os.kill(child, told[0] if told else signal.SIGKILL)
        if not told:
            os._exit(0)
    asking.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def run(words):
    """Run a command line's module or script as ``__main__``; its exit code."""
    try:
        if words[0] == "-m":
            sys.argv, sys.path[0] = words[1:], os.getcwd()
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end(code):
    """End as Python does, but without the destructors of Paddle's library.

    They wait for ever for a lock that a thread of the server, which samples once a second, held as it forked.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    _, address, sys.executable = sys.argv
    words = serve(address)
    sys.modules["paddle.distributed.parallel"]._global_parallel_env = None  # of no rank: it is read anew
    end(run(words))
