"""A Google Cloud Storage of this machine, as much of its JSON API as gcsfs, tensorstore and orbax use; with faults.

    python tests/fake_gcs.py SEED FAULT_RATE

prints its address. Generations and their preconditions hold as in the real one, an object appears when all of it has
come, and of the requests a share fails: with 429, 500 or 503, late, with a connection that breaks before the request is
read to its end, or one that breaks when it has been carried out and only its answer is missing. GET /faults tells how
many of each there were. The bucket `closed` refuses everything, and there is none that is called `absent`.
"""

import asyncio
import base64
import collections
import contextlib
import hashlib
import http.server
import json
import pathlib
import random
import re
import socketserver
import subprocess
import sys
import threading
import time
import types
import urllib.parse
import urllib.request

import google_crc32c

KINDS = ("429", "500", "503", "late", "cut before", "cut after")
LATE_SECONDS = 0.1
NO_FAULT = "x-no-fault"  # header of a request that is to go through


class Storage(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Objects by (bucket, name), in memory."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, seed: int = 0, fault_rate: float = 0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.RLock()
        self.objects: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.uploads: dict[str, tuple[str, str, bytearray]] = {}
        self.generation = int(time.time() * 1e6)
        self.faults = collections.Counter()
        self.fault_rate = fault_rate
        self._random = random.Random(seed)

    def fault(self) -> str | None:
        """What goes wrong with this request."""
        with self.lock:
            if self._random.random() >= self.fault_rate:
                return None
            kind = self._random.choice(KINDS)
            self.faults[kind] += 1
            return kind

    def put(self, bucket: str, name: str, content: bytes) -> dict:
        """Stores an object and gives what is known of it."""
        with self.lock:
            self.generation += 1
            self.objects[bucket, name] = (self.generation, content)
            return self.resource(bucket, name)

    def resource(self, bucket: str, name: str) -> dict:
        """What is known of an object."""
        generation, content = self.objects[bucket, name]
        when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(generation / 1e6))
        crc = google_crc32c.value(content).to_bytes(4, "big")
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation}",
            "name": name,
            "bucket": bucket,
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(content)),
            "timeCreated": when,
            "updated": when,
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "crc32c": base64.b64encode(crc).decode(),
        }

    def handle_error(self, request, client_address):
        """Connections break here on purpose."""


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer's body would wait for its headers to be acknowledged, for 40 ms
    server: Storage

    def log_message(self, *_):
        """Says nothing."""

    def answer_to(self, method: str) -> None:
        """Reads a request, carries it out, and answers, unless a fault comes between."""
        url = urllib.parse.urlsplit(self.path)
        query = {key: value[0] for key, value in urllib.parse.parse_qs(url.query, keep_blank_values=True).items()}
        fault = None if self.headers.get(NO_FAULT) else self.server.fault()
        if fault == "cut before":
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            return self.cut()
        body = self.body()
        if fault == "late":
            time.sleep(LATE_SECONDS)
        elif fault in ("429", "500", "503"):
            return self.respond(int(fault), *self.error(int(fault), "a fault on purpose"))
        try:
            answer = self.carry_out(method, url.path, query, body)
        except Refused as e:
            answer = (e.status, *self.error(e.status, str(e)))
        if fault == "cut after":
            return self.cut()
        return self.respond(*answer)

    do_GET = do_HEAD = lambda self: self.answer_to("GET")
    do_POST = lambda self: self.answer_to("POST")  # noqa: E731
    do_PUT = lambda self: self.answer_to("POST")  # noqa: E731
    do_DELETE = lambda self: self.answer_to("DELETE")  # noqa: E731

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def error(self, status: int, message: str) -> tuple[bytes, dict]:
        reason = {"code": status, "message": message, "errors": [{"message": message}]}
        return json.dumps({"error": reason}).encode(), {}

    def respond(self, status: int, content: bytes = b"", headers: dict | None = None) -> None:
        content = b"" if status in (204, 304) else content  # which have no body
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def carry_out(self, method: str, path: str, query: dict, body: bytes) -> tuple[int, bytes, dict]:
        unquote, storage = urllib.parse.unquote, self.server
        if path == "/faults":
            return 200, json.dumps(storage.faults).encode(), {}
        at = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/([^/]+)(/.*)?)?)?", path)
        if not at:
            raise Refused(404, f"no such API: {method} {path}")
        kind, bucket, name, action = at[1], unquote(at[2]), at[3] and unquote(at[3]), at[4]
        if bucket == "closed":
            raise Refused(403, "somebody@example.com does not have storage.objects.get access")
        if bucket == "absent":
            raise Refused(404, "The specified bucket does not exist.")
        if kind == "/upload":
            return self.upload(bucket, query, body)
        if name is None and not re.search("/o$", path):
            return 200, json.dumps({"kind": "storage#bucket", "name": bucket, "id": bucket}).encode(), {}
        if name is None:
            return 200, json.dumps(self.listing(bucket, query)).encode(), {}
        with storage.lock:
            self.require(bucket, name, query)
            if (bucket, name) not in storage.objects:
                raise Refused(404, f"No such object: {bucket}/{name}")
            generation, content = storage.objects[bucket, name]
            if action:
                return 200, json.dumps(self.copied(bucket, action, content, (bucket, name))).encode(), {}
            if method == "DELETE":
                del storage.objects[bucket, name]
                return 204, b"", {}
            if query.get("alt") != "media":
                return 200, json.dumps(storage.resource(bucket, name)).encode(), {}
        return self.content(storage, bucket, name, generation, content)

    def content(self, storage: Storage, bucket: str, name: str, generation: int, content: bytes):
        headers = {"Content-Type": "application/octet-stream", "x-goog-generation": str(generation)}
        headers["ETag"] = f'"{generation}"'
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return 200, content, headers
        first = int(wanted[1]) if wanted[1] else max(0, len(content) - int(wanted[2]))
        last = min(int(wanted[2]) if wanted[1] and wanted[2] else len(content) - 1, len(content) - 1)
        if first > last:
            raise Refused(416, "The requested range cannot be satisfied.")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return 206, content[first : last + 1], headers

    def require(self, bucket: str, name: str, query: dict) -> None:
        generation, _ = self.server.objects.get((bucket, name), (0, b""))
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != generation:
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.")
        if "ifGenerationNotMatch" in query and int(query["ifGenerationNotMatch"]) == generation:
            raise Refused(304, "")
        if query.get("generation") and int(query["generation"]) != generation:
            raise Refused(404, f"No such object: {bucket}/{name}#{query['generation']}")

    def copied(self, bucket: str, action: str, content: bytes, source: tuple[str, str]) -> dict:
        verb, target = re.fullmatch(r"/(rewriteTo|moveTo|copyTo)/(.*)", action).groups()
        to_bucket, to_name = re.fullmatch(r"(?:b/([^/]+)/)?o/([^/]+)", target).groups()
        made = self.server.put(to_bucket or bucket, urllib.parse.unquote(to_name), content)
        if verb == "moveTo":
            del self.server.objects[source]
        return {"done": True, "resource": made} if verb == "rewriteTo" else made

    def listing(self, bucket: str, query: dict) -> dict:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        with self.server.lock:
            for of, name in sorted(self.server.objects):
                if of != bucket or not name.startswith(prefix):
                    continue
                inside = name[len(prefix) :]
                if delimiter and delimiter in inside:
                    prefixes.add(prefix + inside.split(delimiter)[0] + delimiter)
                else:
                    items.append(self.server.resource(bucket, name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}

    def upload(self, bucket: str, query: dict, body: bytes) -> tuple[int, bytes, dict]:
        storage, kind = self.server, query.get("uploadType")
        if upload_id := query.get("upload_id"):
            return self.resumed(upload_id, body)
        if kind == "resumable":
            name = query.get("name") or json.loads(body)["name"]
            with storage.lock:
                upload_id = f"{len(storage.uploads)}"
                storage.uploads[upload_id] = (bucket, name, bytearray())
            where = f"{storage.address}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={upload_id}"
            return 200, b"", {"Location": where}
        name = query.get("name")
        if kind == "multipart":
            boundary = re.search('boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            _, told, content = body.split(b"--" + boundary, 2)
            name = json.loads(re.split(rb"\r?\n\r?\n", told, maxsplit=1)[1])["name"]
            content = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[1]
            body = content[: content.rindex(b"--" + boundary)].removesuffix(b"\n").removesuffix(b"\r")
        with storage.lock:
            self.require(bucket, name, query)
            return 200, json.dumps(storage.put(bucket, name, body)).encode(), {}

    def resumed(self, upload_id: str, chunk: bytes) -> tuple[int, bytes, dict]:
        with self.server.lock:
            bucket, name, received = self.server.uploads[upload_id]
            first, total = re.fullmatch(
                r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers.get("Content-Range", f"bytes 0-0/{len(chunk)}")
            ).groups()
            if first is not None and int(first) <= len(received):  # what came before may come again
                received[int(first) :] = chunk
            if total != "*" and len(received) == int(total):
                return 200, json.dumps(self.server.put(bucket, name, bytes(received))).encode(), {}
            return 308, b"", {"Range": f"bytes=0-{len(received) - 1}"} if received else {}


def environment(address: str) -> dict[str, str]:
    """What has gcsfs, tensorstore and google-cloud-storage go to this address instead of Google's."""
    return {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # which asks Google itself what kind of bucket it is
        "EPATH_USE_TF": "false",
    }


def shorten_pauses() -> None:
    """Has gcsfs wait a tenth as long, in this process, before it asks again for what has failed."""
    import gcsfs.retry

    gcsfs.retry.asyncio = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(seconds / 10))


@contextlib.contextmanager
def serving(fault_rate: float, seed: int = 0):
    """Starts one in a process of its own; gives its address."""
    command = [sys.executable, __file__, str(seed), str(fault_rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def faults(address: str) -> dict[str, int]:
    """How many requests failed, by kind."""
    return json.loads(_ask(f"{address}/faults"))


def names(address: str, bucket: str) -> list[str]:
    """Of all objects of a bucket."""
    return [item["name"] for item in json.loads(_ask(f"{address}/storage/v1/b/{bucket}/o"))["items"]]


def upload(address: str, bucket: str, prefix: str, folder: pathlib.Path) -> None:
    """Copies all files of a folder into a bucket."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = urllib.parse.quote(f"{prefix}/{path.relative_to(folder)}", safe="")
        _ask(f"{address}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", path.read_bytes())


def download(address: str, bucket: str, folder: pathlib.Path) -> None:
    """Copies all objects of a bucket into a folder."""
    for name in names(address, bucket):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_ask(f"{address}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media"))


def _ask(url: str, body: bytes | None = None) -> bytes:
    return urllib.request.urlopen(urllib.request.Request(url, body, {NO_FAULT: "1"})).read()


if __name__ == "__main__":
    storage = Storage(int(sys.argv[1]), float(sys.argv[2]))
    print(storage.address, flush=True)
    storage.serve_forever()
