"""Real receivers of uploads on loopback: a tus server (resumable-upload) and S3 (moto, which keeps everything in memory)."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


@dataclass
class TusService:
    """`url`: where uploads are created; `requests`: (method, path, Upload-Offset) of each, in order."""

    url: str
    folder: Path
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    def contents(self) -> list[bytes]:
        """Of all that is there."""
        return [path.read_bytes() for path in sorted(self.folder.iterdir())]

    def forget(self) -> None:
        """All uploads."""
        self.storage.delete_upload(self.requests[-1][1].rpartition("/")[2])

    storage: Any = None


@contextlib.contextmanager
def tus_service(folder: Path) -> Iterator[TusService]:
    from resumable_upload.server import TusHTTPRequestHandler, TusServer
    from resumable_upload.storage.sqlite_storage import SQLiteStorage

    storage = SQLiteStorage(str(folder / "uploads.db"), str(folder / "uploads"))
    service = TusService("", folder / "uploads", storage=storage)

    class Handler(TusHTTPRequestHandler):  # type: ignore[misc]  # it has no types
        tus_server = TusServer(storage=storage)

        def parse_request(self) -> bool:
            parsed = bool(super().parse_request())
            if parsed:
                service.requests.append((self.command, self.path, self.headers.get("Upload-Offset", "")))
            return parsed

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_address[1]}/files"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield service
        finally:
            server.shutdown()


class Bucket:
    """One bucket, and the presigned addresses of multipart uploads in it."""

    def __init__(self, url: str) -> None:
        import boto3

        self.url = url
        self.s3: Any = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        self.s3.create_bucket(Bucket="results")

    def address(self, what: str, **more: Any) -> str:
        address: str = self.s3.generate_presigned_url(what, Params={"Bucket": "results", **more}, ExpiresIn=600)
        return address

    def begin(self, key: str) -> str:
        upload: str = self.s3.create_multipart_upload(Bucket="results", Key=key)["UploadId"]
        return upload

    def addresses(self, key: str, upload: str, size: int, part_bytes: int) -> dict[str, Any]:
        """As an ask is answered."""
        numbers = range(1, max(1, -(-size // part_bytes)) + 1)
        parts = [self.address("upload_part", Key=key, UploadId=upload, PartNumber=number) for number in numbers]
        complete = self.address("complete_multipart_upload", Key=key, UploadId=upload)
        return {
            "s3": {"parts": parts, "part_bytes": part_bytes, "complete": complete}, "upload": upload,
            "get": self.address("get_object", Key=key),
        }  # fmt: skip

    def content(self, key: str) -> bytes:
        content: bytes = self.s3.get_object(Bucket="results", Key=key)["Body"].read()
        return content


@contextlib.contextmanager
def s3_service() -> Iterator[Bucket]:
    if sys.version_info < (3, 10):
        pytest.skip("S3: below Python 3.10 botocore wants a urllib3 that unpacks without a limit")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Bucket(f"http://{host}:{port}")
    finally:
        server.stop()
