import ipaddress
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from kit.manualclock import ManualClock
from veapi.channel import Role
from veapi.errors import Conflict, InvalidInput, NotFound
from vecontroller import pem
from vecontroller.identity import create_ca, issue, make_etcd_identity
from vecontroller.identity_cli import cert, init


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    create_ca(tmp_path / "ca", "rack")
    return tmp_path / "ca"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def dns_names(path: Path) -> list[str]:
    names = pem.load_cert(path).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.DNSName)


def test_a_ca_may_sign_certificates_but_no_other_ca(ca: Path) -> None:
    certificate = pem.load_cert(ca / "ca.crt")
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    certificate.verify_directly_issued_by(certificate)
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=3649)


def test_keys_are_private_whatever_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        create_ca(tmp_path / "ca", "rack")
        issue(tmp_path / "ca", Role.HOST, "h1", tmp_path / "h1")
    finally:
        os.umask(old)
    assert mode(tmp_path / "ca" / "ca.key") == 0o600
    assert mode(tmp_path / "h1" / "tls.key") == 0o600
    assert mode(tmp_path / "ca") == 0o700


def test_a_ca_is_never_overwritten(ca: Path) -> None:
    before = (ca / "ca.crt").read_bytes(), (ca / "ca.key").read_bytes()
    with pytest.raises(Conflict) as refused:
        create_ca(ca, "other")
    assert refused.value.hint
    assert ((ca / "ca.crt").read_bytes(), (ca / "ca.key").read_bytes()) == before


def test_an_interrupted_init_is_completed_with_the_key_that_is_there(ca: Path) -> None:
    key = (ca / "ca.key").read_bytes()
    (ca / "ca.crt").unlink()
    create_ca(ca, "rack")
    assert (ca / "ca.key").read_bytes() == key
    issue(ca, Role.USER, "ann", ca / "ann")


@pytest.mark.parametrize(
    ("role", "name", "dns", "serves"),
    [
        (Role.CONTROLLER, "c1", "controller.rack", True),
        (Role.HOST, "h1", "h1.host.rack", True),
        (Role.USER, "ann", "ann.user.rack", False),
    ],
)
def test_a_certificate_names_its_role(
    ca: Path, tmp_path: Path, role: Role, name: str, dns: str, *, serves: bool
) -> None:
    identity = issue(ca, role, name, tmp_path / "out")
    certificate = pem.load_cert(identity.cert)
    certificate.verify_directly_issued_by(pem.load_cert(ca / "ca.crt"))
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert dns_names(identity.cert) == [dns]
    assert (x509.oid.ExtendedKeyUsageOID.SERVER_AUTH in usage) is serves
    assert x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH in usage
    assert certificate.public_key() == pem.load_key(identity.key).public_key()
    assert certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=30)
    assert identity.ca.read_bytes() == (ca / "ca.crt").read_bytes()


def test_the_longest_names_can_be_issued(tmp_path: Path) -> None:
    create_ca(tmp_path, "c" * 63)
    identity = issue(tmp_path, Role.HOST, "h" * 63, tmp_path / "out")
    assert dns_names(identity.cert) == [f"{'h' * 63}.host.{'c' * 63}"]


def test_addresses_come_beside_the_role(ca: Path, tmp_path: Path) -> None:
    addresses = ["10.88.0.1", "::1", "ctl.example.org"]
    identity = issue(ca, Role.CONTROLLER, "c1", tmp_path / "out", addresses=addresses)
    names = pem.load_cert(identity.cert).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.88.0.1"),
        ipaddress.ip_address("::1"),
    ]
    assert dns_names(identity.cert) == ["controller.rack", "ctl.example.org"]


@pytest.mark.parametrize(
    "address",
    [
        "controller.rack",
        "CONTROLLER.rack",
        "ann.user.rack",
        "h2.host.rack",
        "10.0.0.1:7443",
        "unix:/run/x",
        "",
        "*.rack",
        "a b",
        "x" * 254,
    ],
)
def test_no_address_can_be_a_second_role_or_nonsense(
    ca: Path, tmp_path: Path, address: str
) -> None:
    with pytest.raises(InvalidInput, match=r"^address: ") as refused:
        issue(ca, Role.HOST, "h1", tmp_path / "out", addresses=[address])
    assert refused.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "a.host", "H1", "a/b", "a\n", "*"])
def test_names_that_could_be_another_role_are_refused(ca: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"^user: "):
        issue(ca, Role.USER, name, tmp_path / "out")


@pytest.mark.parametrize("days", [0, -1, 3651, 2**63])
def test_validity_has_limits(ca: Path, tmp_path: Path, days: int) -> None:
    with pytest.raises(InvalidInput, match=r"^days: "):
        issue(ca, Role.USER, "ann", tmp_path / "out", days=days)


def test_no_certificate_outlives_its_ca(ca: Path, tmp_path: Path) -> None:
    identity = issue(ca, Role.USER, "ann", tmp_path / "out", days=3650)
    ends = pem.load_cert(identity.cert).not_valid_after_utc
    assert ends <= pem.load_cert(ca / "ca.crt").not_valid_after_utc


def test_issuing_again_renews(ca: Path, tmp_path: Path) -> None:
    first = issue(ca, Role.HOST, "h1", tmp_path / "out").cert.read_bytes()
    second = issue(ca, Role.HOST, "h1", tmp_path / "out").cert.read_bytes()
    assert first != second


def test_files_of_another_ca_are_not_replaced(ca: Path, tmp_path: Path) -> None:
    create_ca(tmp_path / "other", "rack")
    issue(ca, Role.HOST, "h1", tmp_path / "out")
    with pytest.raises(Conflict, match="another CA"):
        issue(tmp_path / "other", Role.HOST, "h1", tmp_path / "out")


def test_without_a_ca_the_hint_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        issue(tmp_path / "none", Role.HOST, "h1", tmp_path / "out")
    assert "vecontroller init" in refused.value.hint


@pytest.mark.parametrize("broken", ["ca.crt", "ca.key"])
def test_a_broken_ca_is_named(ca: Path, tmp_path: Path, broken: str) -> None:
    (ca / broken).write_text("garbage")
    with pytest.raises(InvalidInput, match=broken):
        issue(ca, Role.HOST, "h1", tmp_path / "out")


def test_a_key_of_another_ca_is_noticed(ca: Path, tmp_path: Path) -> None:
    create_ca(tmp_path / "other", "rack")
    (ca / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(InvalidInput, match="is not the key of"):
        issue(ca, Role.HOST, "h1", tmp_path / "out")


def test_nothing_temporary_is_left(ca: Path, tmp_path: Path) -> None:
    issue(ca, Role.HOST, "h1", tmp_path / "out")
    assert sorted(path.name for path in ca.iterdir()) == ["ca.crt", "ca.key"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "ca.crt",
        "tls.crt",
        "tls.key",
    ]


def test_the_identity_of_etcd_is_kept(tmp_path: Path) -> None:
    first = make_etcd_identity(tmp_path / "etcd")
    contents = {path: path.read_bytes() for path in (tmp_path / "etcd").iterdir()}
    assert make_etcd_identity(tmp_path / "etcd") == first
    assert {path: path.read_bytes() for path in (tmp_path / "etcd").iterdir()} == contents
    assert dns_names(first.server_cert) == ["localhost"]


def test_the_identity_of_etcd_is_renewed_before_it_ends(tmp_path: Path) -> None:
    clock = ManualClock()
    first = make_etcd_identity(tmp_path, clock=clock)
    ends = pem.load_cert(first.server_cert).not_valid_after_utc.timestamp()
    before = first.server_cert.read_bytes()
    clock.jump(ends - clock.wall() - 31 * 86_400)
    make_etcd_identity(tmp_path, clock=clock)
    assert first.server_cert.read_bytes() == before
    clock.jump(2 * 86_400)
    make_etcd_identity(tmp_path, clock=clock)
    assert first.server_cert.read_bytes() != before


def test_a_broken_pair_of_etcd_is_made_anew_under_the_same_ca(tmp_path: Path) -> None:
    identity = make_etcd_identity(tmp_path)
    ca = identity.ca.read_bytes()
    identity.client_key.write_bytes(identity.server_key.read_bytes())
    identity.server_cert.unlink()
    make_etcd_identity(tmp_path)
    assert identity.ca.read_bytes() == ca
    for cert_path, key_path in (
        (identity.server_cert, identity.server_key),
        (identity.client_cert, identity.client_key),
    ):
        assert pem.load_cert(cert_path).public_key() == pem.load_key(key_path).public_key()


def test_the_commands_make_a_ca_and_certificates(tmp_path: Path) -> None:
    ca = str(tmp_path / "ca")
    assert CliRunner().invoke(init, ["--cluster", "rack", "--dir", ca]).exit_code == 0
    args = ["host", "h1", "--dir", ca, "--out", str(tmp_path / "h1"), "--address", "10.88.0.11"]
    assert CliRunner().invoke(cert, args).exit_code == 0
    assert dns_names(tmp_path / "h1" / "tls.crt") == ["h1.host.rack"]


def test_a_second_init_ends_with_the_code_of_a_conflict_and_a_hint(ca: Path) -> None:
    result = CliRunner().invoke(init, ["--cluster", "rack", "--dir", str(ca)])
    assert result.exit_code == 4
    assert "error: " in result.output
    assert "hint: " in result.output
    assert "Traceback" not in result.output


def test_a_folder_that_can_not_be_made_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    args = ["--cluster", "rack", "--dir", str(tmp_path / "file" / "ca")]
    result = CliRunner().invoke(init, args)
    assert result.exit_code == 2
    assert "hint: " in result.output
