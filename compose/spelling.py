"""Values of settings as people write them: ranges of ports, `true` and `false`, nothing for nothing."""

from __future__ import annotations

import re

__all__ = ["parse_ports", "spell"]

_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def parse_ports(value: object) -> object:
    """Turn `"5081-5180,6000"` into the ports it names, in order; other values go through. Raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return value
    ports: dict[int, None] = {}
    for part in value.replace(" ", "").split(","):
        if not part:
            continue
        match = _PORTS.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is neither a port nor a range such as 5081-5180")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= 65_535:
            raise ValueError(f"{part!r} does not lie within 1 to 65535 in rising order")
        ports.update(dict.fromkeys(range(first, last + 1)))
    return tuple(ports)


def spell(value: object) -> str:
    """Return a value as people write it: ranges for ports, `true` and `false`, nothing for nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, tuple):
        return str(value)
    if any(isinstance(each, str) for each in value):
        return ",".join(map(str, value))
    runs: list[list[int]] = []
    for port in value:
        if runs and runs[-1][-1] == port - 1:
            runs[-1].append(port)
        else:
            runs.append([port])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
