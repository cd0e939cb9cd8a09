"""A headless Chromium that a test drives through its DevTools protocol, over pipes: no library is needed for it."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LACKING = f"no Chromium on this machine ({', '.join(NAMES)}; Debian: apt-get install chromium)"
_WAIT = 120


def chromium():
    """Path of a Chromium, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page.

    Use as ``with Browser() as page: ...``.
    """

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        theirs, self._to = os.pipe()
        self._from, ours = os.pipe()

        def numbered():  # the browser reads from 3 and writes to 4
            high = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs, ours)]
            for end, number in zip(high, (3, 4)):
                os.dup2(end, number)

        words = [chromium(), "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu",
                 "--hide-scrollbars", "--disable-dev-shm-usage", f"--user-data-dir={self._folder.name}"]  # fmt: skip
        words += ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [*words, "about:blank"], close_fds=False, preexec_fn=numbered, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(ours)
        self._number, self._rest, self._session, self._events = 0, b"", None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Page.enable")
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._folder.name, ignore_errors=True)

    def open(self, path, width=1280, height=900, media=""):
        """Show a file in a window of this size, as on a screen or, with ``print``, on paper."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", media=media)
        self._events.clear()
        self.send("Page.navigate", url=f"file://{path}")
        self._until(lambda: any(event.get("method") == "Page.loadEventFired" for event in self._events))

    def ask(self, expression):
        """The value of an expression of JavaScript in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, selector):
        """Click into the middle of an element, which is scrolled to."""
        x, y = self.ask(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key, code):
        """Press a key, such as ``" ", 32``."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "",
                      windowsVirtualKeyCode=code)  # fmt: skip

    def screenshot(self, whole=False):
        """PNG of the window, or of the whole page."""
        return base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self):
        """The page on paper (A4)."""
        found = self.send("Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(found["data"])

    def send(self, method, **params):
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = []

        def answered():
            answer[:] = [event for event in self._events if event.get("id") == self._number]
            return answer

        self._until(answered)
        self._events.remove(answer[0])
        assert "error" not in answer[0], (method, answer[0]["error"])
        return answer[0]["result"]

    def _until(self, done):
        limit = time.monotonic() + _WAIT
        while not done():
            assert self._process.poll() is None, "the browser has ended"
            assert time.monotonic() < limit, "the browser does not answer"
            if select.select([self._from], [], [], 1)[0]:
                self._rest += os.read(self._from, 1 << 20)
            *whole, self._rest = self._rest.split(b"\0")
            self._events += map(json.loads, whole)
