"""Bringing in another controller: what it needs is made from the configuration of one that is there.

Controllers know each other by the store alone, so there is nobody to ask: a controller is whoever has a controller's
certificate of the cluster and a client's certificate of its etcd.
"""

from collections.abc import Iterator, Mapping
from json import dumps
from pathlib import Path
from typing import Any

import msgspec

from veapi import validate
from veapi.channel import Role
from veapi.errors import Conflict, InvalidInput
from vecontroller import pem
from vecontroller.config import Config, check, load
from vecontroller.identity import issue, issue_etcd

HOME = Path("/etc/verack")
"""Where a controller finds its configuration and its keys."""


def bring_in(
    config: Path, name: str, address: str, *, cluster_ca: Path, etcd_ca: Path, out: Path
) -> Config:
    """Writes controller.toml, tls/ and etcd/ to `out`, for HOME of the new machine; gives that configuration.

    InvalidInput when this one has an embedded etcd, which nobody else can use; Conflict when `out` has a configuration.
    """
    newcomer = newcomer_of(load(config), name, address)
    host = address.rpartition(":")[0].strip("[]")
    target = out / "controller.toml"
    if target.exists():
        raise Conflict(f"{target} exists", hint="choose another --out, or remove it")
    issue(cluster_ca, Role.CONTROLLER, name, out / "tls", addresses=[host])
    issue_etcd(etcd_ca, name, out / "etcd", member=False)
    pem.write(target, to_toml(newcomer).encode(), pem.PUBLIC)
    return newcomer


def newcomer_of(config: Config, name: str, address: str) -> Config:
    """As `config`, but for what each controller has of its own. Pure."""
    validate.name("name", name)
    if config.etcd.embedded:
        raise InvalidInput(
            "this controller has an etcd of its own, which no other can use",
            hint="several controllers need an etcd cluster of 3 or 5: see docs/operations/controllers.md",
        )
    if name == config.name or address == config.address:
        raise InvalidInput(
            f"{name} at {address} is this controller", hint="name the new one, and its address"
        )
    tls, etcd = HOME / "tls", HOME / "etcd"
    host = address.rpartition(":")[0]
    found = msgspec.structs.replace(
        config,
        name=name,
        address=address,
        listen=(address, *(each for each in config.listen if each.startswith("unix:"))),
        metrics=_beside(address, config.metrics),
        tls=msgspec.structs.replace(
            config.tls, ca=tls / "ca.crt", cert=tls / "tls.crt", key=tls / "tls.key"
        ),
        etcd=msgspec.structs.replace(
            config.etcd,
            # Its own machine's member first: so the loss of a machine concerns the fewest controllers.
            endpoints=tuple(
                sorted(config.etcd.endpoints, key=lambda each: each.rpartition(":")[0] != host)
            ),
            ca=etcd / "ca.crt",
            cert=etcd / "tls.crt",
            key=etcd / "tls.key",
        ),
    )
    check(found)
    return found


def _beside(address: str, metrics: str) -> str:
    """The same port for metrics, at the new address."""
    return f"{address.rpartition(':')[0]}:{metrics.rpartition(':')[2]}" if metrics else ""


def to_toml(config: Config) -> str:
    """The file, without the sections that say nothing but defaults."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(Config)}
    plain = msgspec.to_builtins(config, enc_hook=str)
    wanted = {key: value for key, value in plain.items() if getattr(config, key) != defaults[key]}
    return "\n".join(_lines(wanted)) + "\n"


def _lines(fields: Mapping[str, Any]) -> Iterator[str]:
    for key, value in fields.items():
        if not isinstance(value, dict):
            yield f"{key} = {_value(value)}"
    for key, value in fields.items():
        if isinstance(value, dict):
            yield f"\n[{key}]"
            yield from (f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)


def _value(value: Any) -> str:
    """JSON's texts, numbers, booleans and lists are TOML's; tables are written in one line."""
    if isinstance(value, dict):
        pairs = (f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(pairs) + "}"
    return dumps(value)


def _key(key: str) -> str:
    return dumps(key)
