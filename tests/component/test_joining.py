"""`vecontroller join`, and certificates of etcd's own CA."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from veapi.errors import InvalidInput
from vecontroller import pem
from vecontroller.config import load
from vecontroller.identity import create_ca
from vecontroller.identity_cli import cert, join
from vecontroller.joining import newcomer_of

CONFIG = """
name = "c1"
cluster = "rack"
data = "/var/lib/verack/controller"
listen = ["10.0.0.1:7443", "unix:/run/verack/controller.sock"]
address = "10.0.0.1:7443"
metrics = "10.0.0.1:7480"
[tls]
ca = "/etc/verack/tls/ca.crt"
cert = "/etc/verack/tls/tls.crt"
key = "/etc/verack/tls/tls.key"
[etcd]
endpoints = ["10.0.0.1:2379", "10.0.0.2:2379"]
ca = "/srv/e/ca.crt"
cert = "/srv/e/tls.crt"
key = "/srv/e/tls.key"
[deleted]
keep = "7d"
[placement]
strategy = "pack"
[placement.classes.big]
hosts = "size=big"
overcommit = {cpu = 4.0}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_ca(tmp_path / "ca", "rack")
    create_ca(tmp_path / "etcd-ca", "etcd")
    (tmp_path / "controller.toml").write_text(CONFIG)
    return tmp_path


def joined(folder: Path, *options: str) -> Result:
    arguments = ["c2", "--address", "10.0.0.2:7443", "--config", f"{folder}/controller.toml"]
    arguments += ["--dir", f"{folder}/ca", "--etcd-dir", f"{folder}/etcd-ca"]
    return CliRunner().invoke(join, [*arguments, "--out", f"{folder}/c2", *options])


def names(path: Path) -> x509.SubjectAlternativeName:
    extensions = pem.load_cert(path).extensions
    return extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def usages(path: Path) -> set[x509.ObjectIdentifier]:
    extensions = pem.load_cert(path).extensions
    return set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_the_new_controller_gets_its_own_keys_and_the_others_settings(folder: Path) -> None:
    done = joined(folder)
    assert done.exit_code == 0, done.output
    found, first = load(folder / "c2/controller.toml"), load(folder / "controller.toml")
    assert (found.name, found.address, found.metrics) == ("c2", "10.0.0.2:7443", "10.0.0.2:7480")
    assert found.listen == ("10.0.0.2:7443", "unix:/run/verack/controller.sock")
    assert found.tls.cert == Path("/etc/verack/tls/tls.crt")
    assert found.etcd.cert == Path("/etc/verack/etcd/tls.crt")
    same = ("cluster", "deleted", "placement", "network", "images", "data")
    assert all(getattr(found, field) == getattr(first, field) for field in same)
    assert found.etcd.endpoints == tuple(reversed(first.etcd.endpoints))  # its own first
    dns = names(folder / "c2/tls/tls.crt").get_values_for_type(x509.DNSName)
    assert dns == ["controller.rack"]
    assert usages(folder / "c2/etcd/tls.crt") == {ExtendedKeyUsageOID.CLIENT_AUTH}


def test_what_is_there_is_not_overwritten(folder: Path) -> None:
    assert joined(folder).exit_code == 0
    again = joined(folder)
    assert again.exit_code == 4
    assert "exists" in again.output


@pytest.mark.parametrize(
    ("name", "address"), [("c1", "10.0.0.2:7443"), ("c2", "10.0.0.1:7443"), ("c2", "10.0.0.2")]
)
def test_the_new_one_is_another_one_at_an_address(folder: Path, name: str, address: str) -> None:
    with pytest.raises(InvalidInput):
        newcomer_of(load(folder / "controller.toml"), name, address)


def test_with_an_embedded_etcd_there_is_no_second_controller(folder: Path) -> None:
    path = folder / "controller.toml"
    head, _, tail = CONFIG.partition("[etcd]\n")
    path.write_text(f"{head}[etcd]\nembedded = true\n[deleted]{tail.partition('[deleted]')[2]}")
    done = joined(folder)
    assert done.exit_code == 2
    assert "docs/operations/controllers.md" in done.output
    assert not (folder / "c2").exists()


def test_a_member_of_etcd_serves_at_its_addresses(folder: Path) -> None:
    done = issued(folder, "etcd", "m1", "etcd-ca", "--address", "10.0.0.1")
    assert done.exit_code == 0, done.output
    addresses = names(folder / "m1/tls.crt").get_values_for_type(x509.IPAddress)
    assert "10.0.0.1" in {str(address) for address in addresses}
    assert ExtendedKeyUsageOID.SERVER_AUTH in usages(folder / "m1/tls.crt")


@pytest.mark.parametrize(
    ("role", "ca"),
    [("etcd", "ca"), ("etcd-client", "ca"), ("host", "etcd-ca"), ("user", "etcd-ca")],
)
def test_no_host_or_user_can_open_etcd_by_a_mistaken_folder(
    folder: Path, role: str, ca: str
) -> None:
    done = issued(folder, role, "m1", ca)
    assert done.exit_code == 2
    assert "hint:" in done.output
    assert not (folder / "m1").exists()


def issued(folder: Path, role: str, name: str, ca: str, *options: str) -> Result:
    arguments = [role, name, "--dir", f"{folder}/{ca}", "--out", f"{folder}/{name}", *options]
    return CliRunner().invoke(cert, arguments)
