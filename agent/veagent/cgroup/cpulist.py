"""Lists of processors as the kernel writes them, e.g. "0,2-3"."""

from collections.abc import Iterable


def parse(text: str) -> frozenset[int]:
    """Empty for an empty text. Trusts it: the kernel wrote it, or `render`."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def render(cpus: Iterable[int]) -> str:
    """The shortest list."""
    runs: list[tuple[int, int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], cpu)
        else:
            runs.append((cpu, cpu))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def union(one: str, other: str) -> str:
    return render(parse(one) | parse(other))
