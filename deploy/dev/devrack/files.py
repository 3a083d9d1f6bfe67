"""The rack's files: certificates, and the same configuration files that real machines have."""

import json
import os
import shutil
import tomllib
from pathlib import Path

from devrack.plan import REPOSITORY, HostPlan, RackPlan
from devrack.shell import run

USER = "admin"


def write(plan: RackPlan) -> None:
    """Certificates and configurations of controller, hosts and user. Keeps a CA that exists."""
    plan.run.mkdir(parents=True, exist_ok=True)
    plan.state.mkdir(parents=True, exist_ok=True)
    _certificates(plan)
    (plan.state / "controller.toml").write_text(_controller(plan))
    for host in plan.hosts:
        plan.host_state(host).mkdir(exist_ok=True)
        (plan.host_state(host) / "agent.toml").write_text(_agent(plan, host))
    _prometheus(plan)
    context_file(plan).parent.mkdir(parents=True, exist_ok=True)
    context_file(plan).write_text(_contexts({plan.name: _context(plan)}, plan.name))


def _certificates(plan: RackPlan) -> None:
    program = str(plan.bin / "vecontroller")
    ca = plan.state / "ca"
    if not (ca / "ca.crt").exists():
        run([program, "init", "--cluster", plan.name, "--dir", str(ca)])
    wanted = [("controller", "c1"), ("user", USER), *(("host", host.name) for host in plan.hosts)]
    for kind, name in wanted:
        out = plan.identity(name)
        if not (out / "tls.crt").exists():
            run([program, "cert", kind, name, "--dir", str(ca), "--out", str(out)])


def _tls(folder: Path) -> str:
    return f'[tls]\nca = "{folder}/ca.crt"\ncert = "{folder}/tls.crt"\nkey = "{folder}/tls.key"\n'


def _controller(plan: RackPlan) -> str:
    address = f"{plan.controller_address}:7443"
    return f"""\
name = "c1"
cluster = "{plan.name}"
data = "{plan.state}/controller"
listen = ["{address}", "unix:{plan.socket}"]
address = "{address}"
metrics = "{plan.controller_address}:7480"

{_tls(plan.identity("c1"))}
[etcd]
embedded = true

[network]
cidr = "{plan.pool}"

[deleted]
keep = "{plan.keep}"
"""


def _agent(plan: RackPlan, host: HostPlan) -> str:
    state = plan.host_state(host)
    address = plan.address(host)
    return f"""\
host = "{host.name}"
cluster = "{plan.name}"
controllers = ["{plan.controller_address}:7443"]
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
    for kind, targets in (("controllers", [f"{plan.controller_address}:7480"]), ("agents", agents)):
        group = [{"targets": targets, "labels": {"cluster": plan.name}}]
        (folder / "targets" / f"{kind}.json").write_text(json.dumps(group, indent=2))


def context_file(plan: RackPlan) -> Path:
    """The rack's own context file; `make rack` merges it into the user's."""
    return plan.state / "config" / "vectl" / "contexts.toml"


def user_context_file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "vectl" / "contexts.toml"


def _context(plan: RackPlan) -> dict[str, str]:
    folder = plan.identity(USER)
    return {
        "endpoint": f"unix:{plan.socket}",
        "cluster": plan.name,
        "ca": f"{folder}/ca.crt",
        "cert": f"{folder}/tls.crt",
        "key": f"{folder}/tls.key",
        "project": "default",
    }


def _contexts(contexts: dict[str, dict[str, str]], current: str) -> str:
    lines = [f'current = "{current}"'] if current else []
    for name, fields in contexts.items():
        lines += [
            "",
            f"[contexts.{name}]",
            *(f'{key} = "{value}"' for key, value in fields.items()),
        ]
    return "\n".join(lines) + "\n"


def _user_contexts() -> dict[str, dict[str, str]]:
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
