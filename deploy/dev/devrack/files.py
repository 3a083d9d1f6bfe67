"""The rack's files: certificates, and the same configuration files that real machines have."""

import json
import os
import shutil
import tomllib
from pathlib import Path

from devrack.plan import REPOSITORY, ControllerPlan, HostPlan, RackPlan
from devrack.shell import run

USER = "admin"


def write(plan: RackPlan) -> None:
    """Certificates and configurations of controller, hosts and user. Keeps a CA that exists."""
    plan.run.mkdir(parents=True, exist_ok=True)
    plan.state.mkdir(parents=True, exist_ok=True)
    _certificates(plan)
    for controller in plan.controllers:
        config = plan.state / f"{controller.daemon}.toml"
        config.write_text(_controller(plan, controller))
    for host in plan.hosts:
        plan.host_state(host).mkdir(exist_ok=True)
        (plan.host_state(host) / "agent.toml").write_text(_agent(plan, host))
    _prometheus(plan)
    context_file(plan).parent.mkdir(parents=True, exist_ok=True)
    context_file(plan).write_text(_contexts({plan.name: _context(plan)}, plan.name))


def _certificates(plan: RackPlan) -> None:
    ca = _authority(plan, "ca", plan.name)
    wanted = [("user", USER), *(("host", host.name) for host in plan.hosts)]
    wanted += [("controller", controller.name) for controller in plan.controllers]
    for kind, name in wanted:
        _certificate(plan, ca, kind, name, name)
    if plan.controller_count > 1:
        etcd_ca = _authority(plan, "etcd-ca", "etcd")
        for each in plan.controllers:
            address = plan.address_of(each)
            _certificate(plan, etcd_ca, "etcd", each.etcd, each.etcd, "--address", address)
            _certificate(plan, etcd_ca, "etcd-client", each.name, f"{each.name}-etcd")


def _authority(plan: RackPlan, folder: str, cluster: str) -> Path:
    ca = plan.state / folder
    if not (ca / "ca.crt").exists():
        program = str(plan.bin / "vecontroller")
        run([program, "init", "--cluster", cluster, "--dir", str(ca)])
    return ca


def _certificate(
    plan: RackPlan, ca: Path, kind: str, name: str, folder: str, *options: str
) -> None:
    out = plan.identity(folder)
    if not (out / "tls.crt").exists():
        program = str(plan.bin / "vecontroller")
        run([program, "cert", kind, name, "--dir", str(ca), "--out", str(out), *options])


def _tls(folder: Path) -> str:
    return "[tls]\n" + _files(folder)


def _files(folder: Path) -> str:
    return f'ca = "{folder}/ca.crt"\ncert = "{folder}/tls.crt"\nkey = "{folder}/tls.key"\n'


def _etcd(plan: RackPlan, controller: ControllerPlan) -> str:
    if plan.controller_count == 1:
        return "[etcd]\nembedded = true\n"
    endpoints = json.dumps([f"{plan.address_of(each)}:2379" for each in plan.controllers])
    return f"[etcd]\nendpoints = {endpoints}\n" + _files(plan.identity(f"{controller.name}-etcd"))


def _controller(plan: RackPlan, controller: ControllerPlan) -> str:
    address = f"{plan.address_of(controller)}:7443"
    return f"""\
name = "{controller.name}"
cluster = "{plan.name}"
data = "{plan.state}/{controller.daemon}"
listen = ["{address}", "unix:{plan.socket_of(controller)}"]
address = "{address}"
metrics = "{plan.address_of(controller)}:7480"

{_tls(plan.identity(controller.name))}
{_etcd(plan, controller)}
[network]
cidr = "{plan.pool}"

[deleted]
keep = "{plan.keep}"
"""


def _agent(plan: RackPlan, host: HostPlan) -> str:
    state = plan.host_state(host)
    address = plan.address(host)
    controllers = json.dumps([f"{plan.address_of(each)}:7443" for each in plan.controllers])
    return f"""\
host = "{host.name}"
cluster = "{plan.name}"
controllers = {controllers}
address = "{address}"
state = "{state}/agent"
runtime = "{plan.runtime}"

[labels]
rack = "{host.rack}"

{_tls(plan.identity(host.name))}
[pool]
kind = "loop"
path = "{state}/pool.img"
size = "{plan.pool_size}"
mount = "{state}/pool"

[cgroup]
root = "{plan.cgroup}/{host.name}"

[lxcfs]
path = "{plan.lxcfs}"

[metrics]
listen = "{address}:7481"

[peer]
listen = "{address}:7444"

[fence]
folder = "{plan.fence(host)}"

[capacity]
cpu = {plan.cpu}
memory = "{plan.memory}"

[ids]
base = {plan.id_base + host.number * plan.ids_per_host}
count = {plan.ids_per_host // 65_536}
"""


def prometheus_folder(plan: RackPlan) -> Path:
    """A copy of deploy/prometheus with this rack's targets: `prometheus --config.file=...` reads it."""
    return plan.state / "prometheus"


def _prometheus(plan: RackPlan) -> None:
    folder = prometheus_folder(plan)
    (folder / "targets").mkdir(parents=True, exist_ok=True)
    for name in ("prometheus.yml", "verack.rules.yml"):
        shutil.copy(REPOSITORY / "deploy" / "prometheus" / name, folder)
    agents = [f"{plan.address(host)}:7481" for host in plan.hosts]
    controllers = [f"{plan.address_of(each)}:7480" for each in plan.controllers]
    for kind, targets in (("controllers", controllers), ("agents", agents)):
        group = [{"targets": targets, "labels": {"cluster": plan.name}}]
        (folder / "targets" / f"{kind}.json").write_text(json.dumps(group, indent=2))


def context_file(plan: RackPlan) -> Path:
    """The rack's own context file; `make rack` merges it into the user's."""
    return plan.state / "config" / "vectl" / "contexts.toml"


def user_context_file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "vectl" / "contexts.toml"


def _context(plan: RackPlan) -> dict[str, object]:
    """By the socket; of several controllers, by their addresses, which only the switch's namespace reaches."""
    folder = plan.identity(USER)
    several = [f"{plan.address_of(each)}:7443" for each in plan.controllers]
    where: dict[str, object] = {"endpoint": f"unix:{plan.socket}"}
    if len(several) > 1:
        where = {"endpoints": several}
    return {
        **where,
        "cluster": plan.name,
        "ca": f"{folder}/ca.crt",
        "cert": f"{folder}/tls.crt",
        "key": f"{folder}/tls.key",
        "project": "default",
    }


def _contexts(contexts: dict[str, dict[str, object]], current: str) -> str:
    lines = [f'current = "{current}"'] if current else []
    for name, fields in contexts.items():
        lines += [
            "",
            f"[contexts.{name}]",
            *(f"{key} = {json.dumps(value)}" for key, value in fields.items()),
        ]
    return "\n".join(lines) + "\n"


def _user_contexts() -> dict[str, dict[str, object]]:
    """Raises tomllib.TOMLDecodeError: a file that we can't read is never rewritten."""
    path = user_context_file()
    if not path.exists():
        return {}
    contexts = tomllib.loads(path.read_text()).get("contexts", {})
    assert isinstance(contexts, dict)
    return contexts


def add_user_context(plan: RackPlan) -> None:
    """Makes the rack the current context of this user's vectl; other contexts stay."""
    contexts = _user_contexts() | {plan.name: _context(plan)}
    path = user_context_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_contexts(contexts, plan.name))


def remove_user_context(plan: RackPlan) -> None:
    path = user_context_file()
    contexts = _user_contexts()
    if plan.name not in contexts:
        return
    del contexts[plan.name]
    if contexts:
        path.write_text(_contexts(contexts, next(iter(contexts))))
    else:
        path.unlink()
