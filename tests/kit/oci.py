"""OCI layouts made by hand, honest and not, and a registry that serves one: the pull part of its API, on loopback."""

import gzip
import hashlib
import json
import platform
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from kit.storage import Member, tar_of

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Layout:
    """Files of a layout by path. `put` adds a blob; `add_image` all of an image, whose manifest's digest it gives."""

    files: dict[str, bytes] = field(
        default_factory=lambda: {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    )
    manifests: list[dict[str, Any]] = field(default_factory=list)

    def put(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(content)
        self.files[f"blobs/sha256/{digest.removeprefix('sha256:')}"] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def put_json(self, content: object, media_type: str) -> dict[str, Any]:
        return self.put(json.dumps(content).encode(), media_type)

    def add_image(
        self,
        tars: Sequence[bytes],
        *,
        run: Mapping[str, object] | None = None,
        layer_type: str = LAYER,
        **config: object,
    ) -> str:
        """`run`: the config's part of that name; `config`: overrides of its top."""
        layers = [self.put(gzip.compress(tar, 1, mtime=0), layer_type) for tar in tars]
        whole = {
            "os": "linux",
            "architecture": ARCHITECTURE,
            "config": run or {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
            **config,
        }
        return self.add_manifest(self.put_json(whole, CONFIG), layers)

    def add_manifest(self, config: object, layers: Sequence[object], **extra: object) -> str:
        content = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": layers,
            **extra,
        }
        found = self.put_json(content, MANIFEST)
        self.manifests.append(found)
        self.index()
        return str(found["digest"])

    def index(self) -> None:
        content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests}
        self.files["index.json"] = json.dumps(content).encode()

    def members(self) -> list[Member]:
        return [Member(name, content) for name, content in sorted(self.files.items())]

    def tar(self) -> bytes:
        return tar_of(self.members())

    def write(self, folder: Path) -> Path:
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder


@dataclass
class Registry:
    """`address` is host:port. `served`: paths that were asked for. `stall`: blobs never end while it is set."""

    layout: Layout
    address: str = ""
    served: list[str] = field(default_factory=list)
    stall: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    types: dict[str, str] = field(default_factory=dict)


@contextmanager
def registry(layout: Layout, host: str = "127.0.0.1") -> Iterator[Registry]:
    """Serves the layout's first manifest as any tag of any name, over plain HTTP on a free port."""
    made = Registry(layout)

    class Handler(_Handler):
        registry: ClassVar[Registry] = made

    with ThreadingHTTPServer((host, 0), Handler) as server:
        server.daemon_threads = True
        made.address = f"{host}:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.over.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    registry: ClassVar[Registry]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Says nothing."""

    def log_error(self, *args: object) -> None:
        """Says nothing."""

    def _answer(self, *, body: bool) -> None:
        made = self.registry
        made.served.append(self.path)
        if self.path == "/v2/":
            self._send(b"{}", "application/json", body=body)
            return
        kind, reference = self.path.split("/")[-2:]
        manifest = made.layout.manifests[0]
        if kind == "manifests" and not reference.startswith("sha256:"):
            if reference == "missing":
                self._send(
                    b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}',
                    "application/json",
                    body=body,
                    status=404,
                )
                return
            reference = manifest["digest"]
        content = made.layout.files.get(f"blobs/sha256/{reference.removeprefix('sha256:')}")
        if content is None:
            self._send(b"{}", "application/json", body=body, status=404)
            return
        media = MANIFEST if kind == "manifests" else "application/octet-stream"
        self._send(content, made.types.get(reference, media), body=body, digest=reference)

    def _send(
        self, content: bytes, media: str, *, body: bool, status: int = 200, digest: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(content)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if not body:
            return
        if self.registry.stall.is_set() and "/blobs/" in self.path:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.registry.over.wait(30)
            self.close_connection = True
            return
        self.wfile.write(content)


def main(folder: str, address_file: str, host: str) -> None:
    """Serves the layout in a folder until it is killed; as a program, so that it can be in another network namespace."""
    layout = Layout({})
    root = Path(folder)
    for path in sorted(root.rglob("*")):
        if path.is_file():
            layout.files[str(path.relative_to(root))] = path.read_bytes()
    layout.manifests = json.loads(layout.files["index.json"])["manifests"]
    with registry(layout, host) as made:
        draft = Path(f"{address_file}.new")
        draft.write_text(made.address)
        draft.rename(address_file)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
