"""The cluster's certificate authority, and the certificates that it issues; the embedded etcd's own ones too.

Names in certificates are roles (see `veapi.channel`), so no extra name may look like one: a host whose certificate also
said `controller.<cluster>` could pose as the controller. A CA is never overwritten: all that it ever issued would be
worthless.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from veapi import validate
from veapi.channel import Identity, Role, controller_name, host_name, parse_name, user_name
from veapi.clock import Clock, SystemClock
from veapi.errors import Conflict, InvalidInput, NotFound
from vecontroller import pem
from vecontroller.certificates import (
    CA_DAYS,
    CLIENT,
    SERVER,
    Authority,
    Leaf,
    ca_certificate,
    leaf_certificate,
    new_key,
)

LEAF_DAYS = 365
MAX_LEAF_DAYS = CA_DAYS
RENEW_BEFORE_S = 30 * 86_400
_CLOCK = SystemClock()
ETCD_CLUSTER = "etcd"
"""What etcd's own CA is called."""
_LOOPBACK = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    x509.IPAddress(ipaddress.IPv6Address("::1")),
)
_DNS = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII | re.IGNORECASE)
_USAGES: dict[Role, tuple[x509.ObjectIdentifier, ...]] = {
    Role.CONTROLLER: (SERVER, CLIENT),
    Role.HOST: (SERVER, CLIENT),  # a server for its peers
    Role.USER: (CLIENT,),
}


@dataclass(frozen=True, slots=True)
class EtcdIdentity:
    """PEM files for an etcd on loopback and for the one client that may use it."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


def create_ca(directory: Path, cluster: str, *, clock: Clock = _CLOCK) -> tuple[Path, Path]:
    """Makes `ca.crt` and `ca.key` for a new cluster. Conflict when there is a CA already.

    A `ca.key` that an interrupted call left without its certificate is used.
    """
    validate.name("cluster", cluster)
    cert_path, key_path = directory / "ca.crt", directory / "ca.key"
    with pem.named_errors(directory):
        pem.make_directory(directory)
        if cert_path.exists():
            raise pem.exists_already(cert_path)
        if not key_path.exists():
            pem.write_new(key_path, pem.key_pem(new_key()), pem.PRIVATE)
    certificate = ca_certificate(pem.load_key(key_path), cluster, now_s=clock.wall())
    pem.write_new(cert_path, pem.cert_pem(certificate), pem.PUBLIC)
    return cert_path, key_path


def issue(
    directory: Path,
    role: Role,
    name: str,
    out: Path,
    *,
    addresses: Iterable[str] = (),
    days: int = LEAF_DAYS,
    clock: Clock = _CLOCK,
) -> Identity:
    """Writes `ca.crt`, `tls.crt` and `tls.key` for the role to `out`, replacing those of an earlier call.

    `addresses` are further IP addresses or DNS names of a server. NotFound without a CA; Conflict when `out` holds the
    files of another CA.
    """
    validate.name(role.value, name)
    authority = _load_authority(directory)
    if authority.cluster == ETCD_CLUSTER:
        raise InvalidInput(
            f"{directory} holds the CA of etcd: whoever has a certificate of it can read and write all there is",
            hint="give the folder of the cluster's CA",
        )
    role_name = _role_name(role, name, authority.cluster)
    extra = tuple(_address(text, authority.cluster) for text in addresses)
    leaf = Leaf(name, (x509.DNSName(role_name), *extra), _USAGES[role], _checked(days))
    return _write_identity(authority, leaf, out, now_s=clock.wall())


def issue_etcd(
    directory: Path,
    name: str,
    out: Path,
    *,
    member: bool,
    addresses: Iterable[str] = (),
    days: int = LEAF_DAYS,
    clock: Clock = _CLOCK,
) -> Identity:
    """As `issue`, by etcd's own CA: for a member of an etcd cluster at `addresses`, or for a controller as its client."""
    validate.name("etcd", name)
    authority = _load_authority(directory)
    if authority.cluster != ETCD_CLUSTER:
        raise InvalidInput(
            f"{directory} holds the CA of cluster {authority.cluster}, whose hosts and users must not open etcd",
            hint=f"etcd gets a CA of its own: vecontroller init --cluster {ETCD_CLUSTER} --dir DIR",
        )
    extra = tuple(_address(text, authority.cluster) for text in addresses)
    names = (*_LOOPBACK, *extra) if member else (x509.DNSName(name),)
    leaf = Leaf(name, names, (SERVER, CLIENT) if member else (CLIENT,), _checked(days))
    return _write_identity(authority, leaf, out, now_s=clock.wall())


def _checked(days: int) -> int:
    if not 1 <= days <= MAX_LEAF_DAYS:
        raise InvalidInput(f"days: {days}; must be 1 to {MAX_LEAF_DAYS}", hint="365 is usual")
    return days


def _write_identity(authority: Authority, leaf: Leaf, out: Path, *, now_s: float) -> Identity:
    identity = Identity(out / "ca.crt", out / "tls.crt", out / "tls.key")
    with pem.named_errors(out):
        pem.make_directory(out)
        _refuse_other_ca(identity.ca, authority)
    pem.write(identity.ca, pem.cert_pem(authority.certificate), pem.PUBLIC)
    _write_pair(authority, leaf, identity.cert, identity.key, now_s=now_s)
    return identity


def make_etcd_identity(directory: Path, *, clock: Clock = _CLOCK) -> EtcdIdentity:
    """The embedded etcd's CA, server and client pair; what exists is kept until 30 days before its end."""
    identity = EtcdIdentity(
        ca=directory / "ca.crt",
        server_cert=directory / "server.crt",
        server_key=directory / "server.key",
        client_cert=directory / "client.crt",
        client_key=directory / "client.key",
    )
    if not identity.ca.exists():
        create_ca(directory, ETCD_CLUSTER, clock=clock)
    authority = _load_authority(directory)
    # etcd's own gateway dials etcd with the server's certificate.
    server = Leaf("etcd", _LOOPBACK, (SERVER, CLIENT), CA_DAYS)
    client = Leaf("controller", (x509.DNSName("controller"),), (CLIENT,), CA_DAYS)
    for leaf, cert, key in (
        (server, identity.server_cert, identity.server_key),
        (client, identity.client_cert, identity.client_key),
    ):
        if not _serves(authority, cert, key, now_s=clock.wall()):
            _write_pair(authority, leaf, cert, key, now_s=clock.wall())
    return identity


def _role_name(role: Role, name: str, cluster: str) -> str:
    match role:
        case Role.CONTROLLER:
            return controller_name(cluster)
        case Role.HOST:
            return host_name(name, cluster)
        case Role.USER:
            return user_name(name, cluster)


def _address(text: str, cluster: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if len(text) > 253 or _DNS.fullmatch(text) is None:
        raise InvalidInput(
            f"address: {text[:80]!r} is neither an IP address nor a DNS name",
            hint="write it without a port, e.g. 10.88.0.1 or ctl1.example.org",
        )
    if parse_name(text.lower(), cluster) is not None:
        raise InvalidInput(
            f"address: {text!r} is a role of this cluster, not an address",
            hint="a certificate has one role; issue another one for the other role",
        )
    return x509.DNSName(text.lower())


def _load_authority(directory: Path) -> Authority:
    cert_path, key_path = directory / "ca.crt", directory / "ca.key"
    with pem.named_errors(directory):
        if not cert_path.exists():
            raise NotFound(
                f"no CA in {directory}",
                hint="make one with `vecontroller init --cluster NAME --dir DIR`, or give its folder with --dir",
            )
    authority = Authority(pem.load_cert(cert_path), pem.load_key(key_path))
    if authority.certificate.public_key() != authority.key.public_key():
        raise InvalidInput(
            f"{key_path} is not the key of {cert_path}",
            hint="restore both files from the same backup",
        )
    return authority


def _refuse_other_ca(path: Path, authority: Authority) -> None:
    if path.exists() and path.read_bytes() != pem.cert_pem(authority.certificate):
        raise Conflict(
            f"{path} is of another CA",
            hint="choose another --out, or remove that folder if nothing needs it",
        )


def _serves(authority: Authority, cert_path: Path, key_path: Path, *, now_s: float) -> bool:
    """Whether both are there, belong together and to the CA, and are not about to end."""
    try:
        certificate, key = pem.load_cert(cert_path), pem.load_key(key_path)
        certificate.verify_directly_issued_by(authority.certificate)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is made anew
        return False
    left_s = certificate.not_valid_after_utc.timestamp() - now_s
    return left_s > RENEW_BEFORE_S and certificate.public_key() == key.public_key()


def _write_pair(
    authority: Authority, leaf: Leaf, cert_path: Path, key_path: Path, *, now_s: float
) -> None:
    key = new_key()
    certificate = leaf_certificate(authority, key, leaf, now_s=now_s)
    pem.write(key_path, pem.key_pem(key), pem.PRIVATE)
    pem.write(cert_path, pem.cert_pem(certificate), pem.PUBLIC)
