"""Finding weights, and fetching them by https from a server that misbehaves in every way."""

import base64
import hashlib
import http.server
import multiprocessing
import os
import pathlib
import ssl
import subprocess
import threading

import pytest

from ppkd.errors import UserError
from ppkd.files import download, locate
from ppkd.terminal.log import logger
from tests.helpers_tools import OFFLINE

CONTENT = bytes(range(256)) * 4096  # a mebibyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
    """Serves `content` under any path, and misbehaves as `ways` say: one a request, in turn."""

    def start(self, certificate):
        self.content, self.ways, self.asked, self.sent, self.tag = CONTENT, [], [], [], '"one"'
        self.slow = threading.Event()  # set once what is slow shall end
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=[0.02], daemon=True).start()
        self.url = f"https://localhost:{self.server_address[1]}"
        return self

    def handle_error(self, request, client_address):
        pass  # connections that a test breaks


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append((self.path, asked))
        way = server.ways.pop(0) if server.ways else ""
        if way.startswith(("http:", "https:", "file:", "ftp:", "data:")):
            self.send_response(302)
            self.send_header("Location", way)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        while way == "slow headers" and not server.slow.wait(0.05):
            self.wfile.write(b"H")
            self.wfile.flush()
        if way.isdigit():
            self.send_response(int(way))
            return self.end_headers()
        begin = 0
        if asked and way != "no ranges" and self.headers.get("If-Range", server.tag) == server.tag:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
        server.sent.append(begin)
        body = server.content[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            shift = 7 if way == "other range" else 0
            self.send_header("Content-Range", f"bytes {begin + shift}-{len(server.content) - 1}/{len(server.content)}")
        if way != "no tag":
            self.send_header("ETag", server.tag)
        if way != "no length":
            self.send_header("Content-Length", str(len(body)))
        if way == "md5":
            self.send_header("Content-MD5", base64.b64encode(hashlib.md5(body).digest()).decode())
        if way == "wrong md5":
            self.send_header("Content-MD5", base64.b64encode(hashlib.md5(b"").digest()).decode())
        self.end_headers()
        while way == "slow" and not server.slow.wait(0.05):
            self.wfile.write(body[:1])
            body = body[1:]
        self.wfile.write(body[: len(body) // 2] if way in ("break", "no tag") else body)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost, made for these tests."""
    path = str(tmp_path_factory.mktemp("certificate") / "localhost.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", path, "-out", path + ".crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    with open(path, "a") as file:
        file.write(pathlib.Path(path + ".crt").read_text())
    return path


@pytest.fixture
def server(certificate, monkeypatch, tmp_path):
    """A running server whose certificate is trusted, and an empty cache."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate + ".crt")
    monkeypatch.setattr(locate, "CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(logger(), "propagate", True)
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    running = _Server(("localhost", 0), _Handler).start(certificate)
    yield running
    running.shutdown()
    running.server_close()


def files(folder):
    return sorted(p.name for p in pathlib.Path(folder).rglob("*") if p.is_file() and p.name != ".lock")


def content(path):
    return pathlib.Path(path).read_bytes()


# Paths


def test_weights_are_found_with_and_without_suffix(tmp_path):
    for name in ("w.pdparams", "v.safetensors"):
        (tmp_path / name).write_bytes(b"x")
        path = str(tmp_path / name)
        assert locate.find_weights(path, "weights") == path
        assert locate.find_weights(tmp_path / name[0], "weights") == path
    with pytest.raises(UserError, match=r"no file \S*/u or \S*/u\.pdparams or \S*/u\.safetensors \(looked in .*\)"):
        locate.find_weights(tmp_path / "u", "teacher weights")


def test_a_path_may_have_a_checksum_too(tmp_path):
    (tmp_path / "w.pdparams").write_bytes(CONTENT)
    path = str(tmp_path / "w.pdparams")
    assert locate.find_weights(f"{path}#sha256={SHA256}", "weights") == path
    assert locate.find_weights(f"{tmp_path}/w#sha256={SHA256.upper()}", "weights") == path
    with pytest.raises(UserError, match=rf"weights: {path} is not the file.*its SHA-256 is {SHA256}, not 0000"):
        locate.find_weights(f"{path}#sha256={64 * '0'}", "weights")
    with pytest.raises(UserError, match="a SHA-256 checksum has 64 digits from 0 to f, this one is 'abc'"):
        locate.find_weights(f"{path}#sha256=abc", "weights")


# Addresses


@pytest.mark.parametrize("url", ["http://localhost/w.pdparams", "ftp://localhost/w", "file:///etc/passwd"])
def test_only_https_is_fetched(url):
    with pytest.raises(UserError, match=f"{url}: weights are fetched by https only"):
        locate.find_weights(url, "weights")


@pytest.mark.parametrize("url", ["https://localhost/", "https://localhost", "https:///w", "https://localhost/a/.."])
def test_an_address_without_a_file(url):
    with pytest.raises(UserError, match="names no file"):
        locate.find_weights(url, "weights")


def test_the_constants_are_ppdets():
    from ppkd.bridge.workspace import import_ppdet

    import_ppdet()
    from ppdet.utils import download as upstream

    assert upstream.PPDET_WEIGHTS_DOWNLOAD_URL_PREFIX == locate.UPSTREAM and upstream.WEIGHTS_HOME == locate.CACHE


def test_a_file_of_ppdets_lies_where_ppdet_keeps_it_and_another_of_that_name_elsewhere():
    places = [
        download.place_of(url, "cache", [locate.UPSTREAM])
        for url in (locate.UPSTREAM + "models/w.pdparams", "https://a.org/w.pdparams", "https://b.org/w.pdparams",
                    "https://a.org/x/w.pdparams", "https://a.org/%2e%2e%2fw.pdparams")
    ]  # fmt: skip
    assert places[0] == os.path.join("cache", "w.pdparams")
    assert len(set(places)) == 5
    assert all(place.split(os.sep)[-1] == "w.pdparams" and ".." not in place for place in places)


# Fetching


def test_a_file_is_fetched_once_and_its_size_and_checksum_are_told(server, caplog):
    caplog.set_level("INFO", "ppkd")
    path = locate.find_weights(server.url + "/models/w.pdparams", "teacher weights")
    assert content(path) == CONTENT and files(locate.CACHE) == ["w.pdparams"]
    assert f"teacher weights: {path}, 1.0 MB, SHA-256 {SHA256} (to have it checked: {server.url}" in caplog.text
    assert locate.find_weights(server.url + "/models/w.pdparams", "teacher weights") == path
    assert len(server.asked) == 1


def test_the_right_checksum_is_as_wanted(server, caplog):
    caplog.set_level("INFO", "ppkd")
    server.ways = ["md5"]
    path = locate.find_weights(f"{server.url}/w.pdparams#sha256={SHA256}", "weights")
    assert content(path) == CONTENT and "(as wanted)" in caplog.text


@pytest.mark.parametrize("way, told", [("", f"its SHA-256 is {SHA256}, not 111"), ("wrong md5", "not of the MD5")])
def test_a_wrong_file_is_refused_and_not_kept(server, way, told):
    server.ways = [way]
    url = server.url + "/w.pdparams" + ("" if way else f"#sha256={64 * '1'}")
    with pytest.raises(UserError, match=f"not the file that is wanted: .*{told}.*nothing of it is kept"):
        locate.find_weights(url, "weights")
    assert files(locate.CACHE) == []


def test_a_wrong_checksum_for_a_file_that_is_there(server):
    path = locate.find_weights(server.url + "/w.pdparams", "weights")
    with pytest.raises(UserError, match=rf"fetched before; remove it to fetch it anew: {path} is not the file"):
        locate.find_weights(f"{server.url}/w.pdparams#sha256={64 * '1'}", "weights")
    assert content(path) == CONTENT and len(server.asked) == 1


@pytest.mark.parametrize("ways", [["break"], ["break", "break"], ["no ranges", "break"], ["no length"]])
def test_an_interrupted_fetch_goes_on(server, ways):
    server.ways = list(ways)
    path = locate.find_weights(server.url + "/w.pdparams", "weights")
    assert content(path) == CONTENT and files(locate.CACHE) == ["w.pdparams"]
    ranges = [asked for _, asked in server.asked]
    assert ranges[0] is None
    if ways[0] == "break":
        assert ranges[1] == f"bytes={len(CONTENT) // 2}-" and server.sent[1] == len(CONTENT) // 2


def test_a_fetch_that_fails_leaves_no_file_and_the_next_goes_on(server):
    server.ways = ["break", "500", "503"]
    with pytest.raises(UserError, match=r"could not be downloaded \(the server answers 503 .*give the file's path"):
        locate.find_weights(server.url + "/w.pdparams", "weights")
    assert files(locate.CACHE) == ["w.pdparams.part", "w.pdparams.part.version"]
    path = locate.find_weights(server.url + "/w.pdparams", "weights")
    assert server.asked[-1][1] == f"bytes={len(CONTENT) // 2}-"
    assert content(path) == CONTENT and files(locate.CACHE) == ["w.pdparams"]


@pytest.mark.parametrize("second", ["", "other range", "416", "no ranges"])
def test_pieces_of_two_versions_are_not_mixed(server, second):
    """The file on the server is another one when the fetch goes on."""
    server.ways = ["break", "500", "500"]
    with pytest.raises(UserError):
        locate.find_weights(server.url + "/w.pdparams", "weights")
    if second in ("", "no ranges"):
        server.content, server.tag = CONTENT[::-1], '"two"'
    server.ways = [second]
    assert content(locate.find_weights(server.url + "/w.pdparams", "weights")) == server.content


def test_without_a_version_a_fetch_begins_anew(server):
    server.ways = ["no tag", "no tag"]
    path = locate.find_weights(server.url + "/w.pdparams", "weights")
    assert [asked for _, asked in server.asked] == [None, None, None] and content(path) == CONTENT


def test_a_server_that_always_breaks_off(server):
    server.content = CONTENT * 20
    server.ways = ["break"] * 3
    with pytest.raises(UserError, match="could not be downloaded"):
        locate.find_weights(server.url + "/w.pdparams", "weights")
    assert "w.pdparams" not in files(locate.CACHE)


def test_what_leads_away_from_https_is_refused(server):
    server.ways = [server.url + "/elsewhere"]
    assert content(locate.find_weights(server.url + "/w.pdparams", "weights")) == CONTENT
    plain = http.server.ThreadingHTTPServer(("localhost", 0), _Handler)
    plain.content, plain.ways, plain.asked, plain.sent, plain.tag = CONTENT, [], [], [], '"one"'
    threading.Thread(target=plain.serve_forever, args=[0.02], daemon=True).start()
    server.ways = [f"http://localhost:{plain.server_address[1]}/w"]
    with pytest.raises(UserError, match=r"/v.pdparams: leads to http://localhost:\d+/w, which is not https"):
        locate.find_weights(server.url + "/v.pdparams", "weights")
    assert plain.asked == []  # refused before anything was sent
    # Over another address of https, and by an answer to the part that was still missing.
    server.ways = ["break", f"{server.url}/x", f"http://localhost:{plain.server_address[1]}/w"]
    with pytest.raises(UserError, match="which is not https"):
        locate.find_weights(server.url + "/u.pdparams", "weights")
    assert plain.asked == []
    plain.shutdown()
    plain.server_close()
    assert [name for name in files(locate.CACHE) if ".part" not in name] == ["w.pdparams"]


@pytest.mark.parametrize("way", ["file:///etc/passwd", "ftp://localhost/w", "data:text/plain,w"])
def test_what_leads_to_another_kind_of_address_is_refused_at_once(server, way):
    server.ways = [way]
    with pytest.raises(UserError, match=rf"/w.pdparams: leads to {way}, which is not https"):
        locate.find_weights(server.url + "/w.pdparams", "weights")
    assert len(server.asked) == 1 and files(locate.CACHE) == []


@pytest.mark.parametrize(("way", "told"), [("/w.pdparams", "without end"), ("https://[::1", "an address that is none")])
def test_what_leads_nowhere_is_told_and_not_tried_again(server, way, told):
    server.ways = [server.url + way if way.startswith("/") else way] * 99
    with pytest.raises(UserError, match=told):
        locate.find_weights(server.url + "/w.pdparams", "weights")
    assert len(server.asked) < 50 and files(locate.CACHE) == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "a page or drawing in HTML"),
        (b'\n <?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a page or drawing in HTML, XML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull` fetches the file"),
        (b"", "it is empty"),
    ],
)
def test_what_a_server_sends_in_a_files_place_is_not_kept(server, body, told):
    server.content = body
    with pytest.raises(UserError, match=told):
        locate.find_weights(server.url + "/w.pdparams", "weights")
    assert files(locate.CACHE) == []
    server.content = CONTENT
    assert content(locate.find_weights(server.url + "/w.pdparams", "weights")) == CONTENT


@pytest.mark.parametrize("way", ["slow", "slow headers"])
def test_a_server_that_takes_for_ever_is_let_go(server, monkeypatch, way):
    """Each byte comes in time, and all of them in days; nothing is written later, and the next try goes on."""
    monkeypatch.setattr(download, "_TOTAL", 1)
    server.ways = [way] * 3
    with pytest.raises(UserError, match="could not be downloaded .it takes more than"):
        locate.find_weights(server.url + "/w.pdparams", "weights")
    left = {name: content(p) for p in pathlib.Path(locate.CACHE).rglob("*") if (name := p.name).endswith(".part")}
    server.slow.set()
    monkeypatch.undo()
    assert all(CONTENT.startswith(part) and len(part) < len(CONTENT) for part in left.values())


def test_a_certificate_that_nobody_vouches_for(server, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(UserError, match=r"could not be downloaded \(SSLError\)"):
        locate.find_weights(server.url + "/w.pdparams", "weights")
    assert files(locate.CACHE) == []


def _fetch(url, cache):
    locate.CACHE = cache
    locate.find_weights(url, "weights")


def test_processes_that_want_one_file_fetch_it_once(server):
    server.content = CONTENT * 10
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fetch, args=(server.url + "/w.pdparams", locate.CACHE)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4 and len(server.asked) == 1


def test_a_cache_that_cannot_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(locate, "CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        locate.find_weights(server.url + "/w.pdparams", "weights")


# Without a network


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and an empty cache of downloaded weights."""
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(locate, "CACHE", str(tmp_path))


def test_a_failed_download_says_what_to_do_instead(offline):
    url = "https://paddledet.bj.bcebos.com/models/none.pdparams"
    with pytest.raises(UserError, match=f"weights: {url} could not be downloaded.*give the file's path instead"):
        locate.find_weights(url, "weights")


def test_weights_that_were_downloaded_before_need_no_network(offline, tmp_path):
    """ppdet itself asks the server for their checksum and fails."""
    (tmp_path / "cached.pdparams").write_bytes(CONTENT)
    path = str(tmp_path / "cached.pdparams")
    assert locate.find_weights("https://paddledet.bj.bcebos.com/models/cached.pdparams", "weights") == path
    assert locate.find_weights("ppdet://models/cached.pdparams", "weights") == path
