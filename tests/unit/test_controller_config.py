from pathlib import Path

import pytest

from veapi.errors import InvalidInput
from vecontroller.config import load

GOOD = """
name = "c1"
cluster = "rack"
data = "/var/lib/x"
listen = ["127.0.0.1:7443"]
address = "127.0.0.1:7443"
[tls]
ca = "ca"
cert = "cert"
key = "key"
[etcd]
embedded = true
"""


def loaded(tmp_path, text, **options):
    path = tmp_path / "controller.toml"
    path.write_text(text)
    return load(path, **options)


def test_a_small_configuration_has_defaults(tmp_path):
    config = loaded(tmp_path, GOOD)
    assert (config.log.level, config.metrics, config.data) == ("info", "", Path("/var/lib/x"))
    assert config.new_cluster.name == "rack"
    assert config.new_cluster.network.gateway == "10.66.0.1"


def test_the_gateway_is_the_first_address_of_the_pool(tmp_path):
    config = loaded(tmp_path, GOOD + '[network]\ncidr = "10.9.8.0/24"\n')
    assert config.new_cluster.network.gateway == "10.9.8.1"


def test_the_flag_overrides_the_etcd_of_the_file(tmp_path):
    text = GOOD.replace("embedded = true", 'endpoints = ["a:1"]\nca="a"\ncert="b"\nkey="c"')
    assert loaded(tmp_path, text).etcd.endpoints == ("a:1",)
    assert loaded(tmp_path, text, embedded_etcd=True).etcd.embedded


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[tls]", "[tls]\ncolour = 1", "colour"),
        ('name = "c1"', "", "name"),
        ('name = "c1"', "name = 3", r"\$\.name"),
        ('name = "c1"', 'name = "C 1"', "name"),
        ('data = "/var/lib/x"', "data = 3", r"\$\.data"),
        ('listen = ["127.0.0.1:7443"]', "listen = []", "listen: is empty"),
        ('listen = ["127.0.0.1:7443"]', 'listen = ["unix:x"]', "absolute"),
        ('listen = ["127.0.0.1:7443"]', 'listen = ["7443"]', "host:port"),
        ('address = "127.0.0.1:7443"', 'address = "127.0.0.1:x"', "address"),
        ("embedded = true", "", "embedded = true or endpoints"),
        ("embedded = true", 'endpoints = ["a:1"]', "ca, cert, key is missing"),
        ("embedded = true", 'embedded = true\nendpoints = ["a:1"]', "either"),
        ("[etcd]", '[network]\ncidr = "x"\n[etcd]', "network.cidr"),
        ("[etcd]", '[network]\ncidr = "10.0.0.0/30"\n[etcd]', "too small"),
        ("[etcd]", '[network]\ngateway = "1.2.3.4"\n[etcd]', "network.gateway"),
        ("[etcd]", "[network]\nvxlan_id = 0\n[etcd]", "vxlan_id"),
        ("[etcd]", '[log]\nlevel = "loud"\n[etcd]', r"\$\.log\.level"),
        ("[etcd]", "[etcd", "controller.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(InvalidInput, match=message) as caught:
        loaded(tmp_path, GOOD.replace(old, new))
    assert caught.value.hint
    assert "controller.toml" in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"none\.toml"):
        load(tmp_path / "none.toml")
