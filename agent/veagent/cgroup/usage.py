"""What a VE uses, as its cgroup counts it, and how the kernel's files are read."""

from dataclasses import dataclass

UNLIMITED = -1
_V1_UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters start anew with each start of the VE, but for `oom_kills`. A limit of -1: none.

    `memory_working_set_bytes` is what can't be reclaimed without cost: current less inactive file pages.
    """

    cpu_seconds: float
    cpu_user_seconds: float
    cpu_system_seconds: float
    cpu_periods: int
    cpu_throttled_periods: int
    cpu_throttled_seconds: float
    memory_current_bytes: int
    memory_limit_bytes: int
    memory_swap_bytes: int
    memory_working_set_bytes: int
    memory_anon_bytes: int
    memory_file_bytes: int
    oom_kills: int
    pids_current: int
    pids_limit: int
    pids_refused: int
    io_read_bytes: int
    io_write_bytes: int
    io_reads: int
    io_writes: int


def table(text: str) -> dict[str, int]:
    """Lines of a name and a number, as in memory.stat."""
    rows: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            rows[name] = int(value)
    return rows


def limit(text: str) -> int:
    """A limit file's number: -1 for `max`, and for the huge number that means it on v1."""
    text = text.strip()
    if text == "max":
        return UNLIMITED
    return UNLIMITED if int(text) >= _V1_UNLIMITED else int(text)


def blkio(text: str) -> tuple[int, int]:
    """Reads and writes of blkio.throttle.io_*_recursive, over all devices."""
    sums = {"Read": 0, "Write": 0}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in sums:
            sums[words[1]] += int(words[2])
    return sums["Read"], sums["Write"]


def io_stat(text: str) -> dict[str, int]:
    """Sums of io.stat's `key=value` over all devices."""
    sums = dict.fromkeys(("rbytes", "wbytes", "rios", "wios"), 0)
    for line in text.splitlines():
        for word in line.split()[1:]:
            key, _, value = word.partition("=")
            if key in sums and value.isdigit():
                sums[key] += int(value)
    return sums
