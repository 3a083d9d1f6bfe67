"""Controller and agents serve Prometheus metrics over what runs."""

from prometheus_client.parser import text_string_to_metric_families

from kit.rack import Rack


def families(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def test_both_kinds_of_metrics_tell_of_a_running_ve(clean: Rack) -> None:
    clean.vectl("create", "measured", "--image", "busybox", "--host", "h2", "--memory", "64M")
    clean.vectl(
        "exec", "measured", "--", "sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    )
    agent = families(clean.http(f"http://{clean.plan.address(clean.host('h2'))}:7481/metrics"))
    controller = families(clean.http(f"http://{clean.plan.controller_address}:7480/metrics"))

    def of_ve(found: dict[str, list[tuple[dict[str, str], float]]], name: str) -> list[float]:
        return [value for labels, value in found[name] if labels.get("ve") == "measured"]

    assert of_ve(agent, "verack_ve_memory_limit_bytes") == [64 << 20]
    assert of_ve(agent, "verack_ve_memory_current_bytes")[0] > 0
    assert of_ve(agent, "verack_ve_pids")[0] >= 1
    assert sum(of_ve(agent, "verack_ve_cpu_seconds_total")) > 0
    assert of_ve(agent, "verack_ve_network_receive_bytes_total")
    committed = {
        (labels["host"], labels["resource"]): value
        for labels, value in controller["verack_host_committed"]
    }
    assert committed["h2", "memory_bytes"] == 64 << 20
    ready = {
        labels["host"] for labels, value in controller["verack_host_state"]
        if labels["state"] == "Ready" and value == 1
    }  # fmt: skip
    assert ready == {"h1", "h2", "h3"}
    assert all(
        name.startswith(("verack_", "python_", "process_")) for name in (*agent, *controller)
    )
