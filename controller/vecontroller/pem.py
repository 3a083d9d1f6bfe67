"""PEM files: read with errors that people understand, written whole or not at all, keys private from their first byte."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from veapi.errors import Conflict, InvalidInput

PRIVATE, PUBLIC = 0o600, 0o644


def load_cert(path: Path) -> x509.Certificate:
    with named_errors(path):
        data = path.read_bytes()
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        raise _unreadable(path, "a certificate") from None


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    with named_errors(path):
        data = path.read_bytes()
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        raise _unreadable(path, "a private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unreadable(path, "an EC private key")
    return key


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def cert_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_directory(path: Path) -> None:
    """Only its owner enters; parents are as the umask says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def write(path: Path, data: bytes, mode: int) -> None:
    """Replaces the file, atomically and durably."""
    with named_errors(path), _temporary(path, data, mode) as temporary:
        temporary.rename(path)
        _sync_directory(path.parent)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Makes the file; Conflict when there is one already, also when it came a moment ago."""
    with named_errors(path), _temporary(path, data, mode) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            raise exists_already(path) from None
        _sync_directory(path.parent)


def exists_already(path: Path) -> Conflict:
    return Conflict(
        f"{path} exists already and is not overwritten",
        hint="use it with `vecontroller cert`, or choose another --dir for a new cluster",
    )


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """OSError becomes InvalidInput that names the path."""
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"can't use {error.filename or path}: {error.strerror}",
            hint="check the path, its owner and the free space",
        ) from None


@contextmanager
def _temporary(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - it is a descriptor
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(path: Path, what: str) -> InvalidInput:
    return InvalidInput(f"{path} is not {what} in PEM", hint="restore the file from a backup")
