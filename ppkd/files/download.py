"""Fetches weight files by https into a folder, whole or not at all."""

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import threading
import time
from urllib.parse import unquote, urlsplit

from ppkd.errors import UserError
from ppkd.files.in_place import in_place_of
from ppkd.files.paths import safe_name
from ppkd.terminal.log import duration, logger

_ATTEMPTS = 3
_PIECE = 1 << 16
_TIMEOUT = (15, 60)  # seconds to connect, and without a byte
_TOTAL = 2 * 3600  # seconds for a file, or a server that sends a byte a minute would hold a command for ever
_NAMED = re.compile(r"-([0-9a-f]{8})\.pth$")
_WHO_NAME = ("https://download.openmmlab.com/", "https://download.pytorch.org/")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class Unreachable(Exception):
    """A download that failed for now, by the network's or the server's fault."""


def split_checksum(address):
    """Split ``ADDRESS#sha256=HEX`` into the address and the checksum in lower case, or None.

    Raises:
        UserError: the part behind ``#sha256=`` is no SHA-256 checksum.
    """
    place, mark, checksum = str(address).rpartition("#sha256=")
    if not mark:
        return str(address), None
    if not _SHA256.fullmatch(checksum):
        raise UserError(f"{address}: a SHA-256 checksum has 64 digits from 0 to f, this one is {checksum!r}")
    return place, checksum.lower()


def named_checksum(url):
    """The first digits of the SHA-256 that a file's name ends in, as of those two who publish models that way; or None.

    ``resnet50-19c8e357.pth`` is PyTorch's rule (``torch.hub``), and OpenMMLab's.
    """
    name = _NAMED.search(urlsplit(url).path) if url.startswith(_WHO_NAME) else None
    return name and name[1]


def sha256(path):
    """SHA-256 of a file, as 64 digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def check(path, checksum, what):
    """Compare a file with its checksum; None is not compared.

    Raises:
        UserError: it is another file.
    """
    if checksum is not None and not (found := sha256(path)).startswith(checksum):
        raise UserError(f"{what}: {path} is not the file that is wanted: its SHA-256 is {found}, not {checksum}")


def place_of(url, folder, shared=()):
    """Where `fetch` keeps the file of a URL.

    Args:
        url: of https.
        folder: the cache.
        shared: beginnings of URLs whose files lie in `folder` itself, as PaddleDetection keeps them. Others, whose
            names may be the same, have a folder of their own each.

    Raises:
        UserError: no https URL of a file.
    """
    parts = urlsplit(url)
    name = safe_name(unquote(parts.path).rsplit("/", 1)[-1])
    if parts.scheme != "https":
        raise UserError(f"{url}: weights are fetched by https only, so that they come from whom the address names")
    if not parts.hostname or not name:
        raise UserError(f"{url}: names no file")
    if url.startswith(tuple(shared)):
        return os.path.join(folder, name)
    own = f"{safe_name(parts.hostname)}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    return os.path.join(folder, own, name)


def fetch(url, path, checksum=None):
    """Fetch a file, unless it is there; what an interrupted fetch has left is gone on with.

    The file gets its name only when it is complete: of the size and MD5 that the server tells, if it does, and of the
    SHA-256 that is wanted. Processes that want the same file wait for the first of them.

    Args:
        url: of https, also wherever it leads on to.
        path: where it shall be; beside it stand ``.part`` files meanwhile.
        checksum: SHA-256, or None.

    Raises:
        Unreachable: no connection, or an answer that is none; what came so far is kept.
        UserError: another file than is wanted, or a web page; the address leads elsewhere than by https, or in circles;
            it cannot be written.
    """
    try:
        if not os.path.isfile(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with _alone(os.path.dirname(path)):
                if not os.path.isfile(path):
                    _fetch(url, path, checksum)
                    return
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error}") from error
    check(path, checksum, f"{url} was fetched before; remove it to fetch it anew")


@contextlib.contextmanager
def _alone(folder):
    """Hold a folder's lock, which goes with the process, however that ends; its file stays, or two might hold it."""
    with open(os.path.join(folder, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(url, path, checksum):
    part, deadline = path + ".part", time.monotonic() + _TOTAL
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            md5 = _until(deadline, _receive, url, part)
            break
        except Unreachable as error:
            if attempt == _ATTEMPTS:
                raise
            logger().warning("%s: %s; trying again", url, error)
    _check_is_a_file(part, url)
    found = sha256(part)
    wrong = checksum is not None and not found.startswith(checksum)
    if wrong or (md5 is not None and md5 != _md5(part)):
        _forget(part)
        told = f"its SHA-256 is {found}, not {checksum}" if wrong else "it is not of the MD5 that the server tells"
        raise UserError(f"{url}: not the file that is wanted: {told}; nothing of it is kept")
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    _forget(part)


def _check_is_a_file(part, url):
    """Refuse what a server sends in place of a file with an answer that says that all is well: a page to sign in on."""
    with open(part, "rb") as file:
        begin = file.read(100)
    if not begin or (instead := in_place_of("file", begin)):
        _forget(part)
        raise UserError(f"{url}: not the file that is wanted{instead if begin else ': it is empty'}")


def _until(deadline, work, *args):
    """What ``work(*args, stop)`` returns or raises; once `deadline` has passed it is let go, told by the event `stop`.

    A thread, since a server can also take its time over the first line of its answer.
    """
    result, stop = [], threading.Event()

    def run():
        try:
            result.append((work(*args, stop), None))
        except BaseException as error:
            result.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(max(0.0, deadline - time.monotonic()))
    finally:
        stop.set()
    if not result:
        raise Unreachable(f"it takes more than {duration(_TOTAL)} hours; what came is kept, and the next try goes on")
    value, error = result[0]
    if error is not None:
        raise error
    return value


def _session():
    """A session of requests that sends nothing but by https, wherever an answer leads."""
    import requests

    class Refusing(requests.adapters.BaseAdapter):
        def send(self, request, **kwargs):
            raise UserError(f"leads to {request.url}, which is not https")

        def close(self):
            pass

    session = requests.Session()
    session.adapters.pop("http://").close()
    session.mount("", Refusing())
    return session


def _receive(url, part, stop):
    """Fetch all of a file into `part`, going on behind what is there; returns its MD5 as the server tells it."""
    import requests

    done, version = _begun(part)
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": version}
    try:
        with _session() as session, session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code == 416:  # what is there is not of this file
                _forget(part)
                raise Unreachable("the file has changed meanwhile")
            if answer.status_code not in (200, 206):
                raise Unreachable(f"the server answers {answer.status_code} {answer.reason}")
            done = _goes_on_at(answer, done)
            _remember(part, answer.headers)
            _write(answer, part, done, stop)
            return _told_md5(answer.headers)
    except UserError as error:
        raise UserError(f"{url}: {error}") from None
    except requests.TooManyRedirects:
        raise UserError(f"{url}: leads from one address to the next without end") from None
    except ValueError as error:
        raise UserError(f"{url}: leads to an address that is none: {error}") from None
    except requests.RequestException as error:
        raise Unreachable(f"{type(error).__name__}") from error


def _begun(part):
    """How many bytes are there already, and of which version of the file; 0 if the version is not known."""
    try:
        with open(part + ".version", encoding="utf-8") as file:
            version = file.read()
        return (os.path.getsize(part), version) if version else (0, "")
    except OSError:
        return 0, ""


def _remember(part, headers):
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    # A weak tag is of files that mean the same, not of the same bytes.
    with open(part + ".version", "w", encoding="utf-8") as file:
        file.write("" if version.startswith("W/") else version)


def _goes_on_at(answer, done):
    """The first byte that the answer brings."""
    if answer.status_code == 200:
        return 0
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != done:
        raise Unreachable("the server answers with another part than was asked for")
    return done


def _write(answer, part, done, stop):
    from tqdm import tqdm

    left = answer.headers.get("Content-Length")
    total = done + int(left) if left and left.isdigit() else None
    size = f"{total / 1e6:.1f} MB" if total is not None else "of unknown size"
    logger().info("fetching %s (%s%s)", answer.url, size, f", {done / 1e6:.1f} MB are there" if done else "")
    with open(part, "rb+" if done else "wb") as file:
        file.seek(done)
        file.truncate()
        with tqdm(total=total, initial=done, unit="B", unit_scale=True, disable=None) as progress:
            for piece in answer.iter_content(_PIECE):
                if stop.is_set():  # another process may have gone on with the file meanwhile
                    return
                file.write(piece)
                progress.update(len(piece))
        end = file.tell()
    if total is not None and end != total:
        raise Unreachable(f"{end} of {total} bytes came")


def _told_md5(headers):
    try:
        return base64.b64decode(headers.get("Content-MD5", "").strip('"'), validate=True).hex() or None
    except ValueError:
        return None


def _md5(path):
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _forget(part):
    for path in (part, part + ".version"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
