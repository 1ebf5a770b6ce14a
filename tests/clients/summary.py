"""The closing lines of a run about clients: the steps of each that ran, and loudly those that could not be had."""

from __future__ import annotations

import pytest

COUNTED = "client"
NO_CLIENT = "no client "


def write_client_lines(reporter: pytest.TerminalReporter) -> None:
    """Write `clients: python 3.2.2 REST 51 steps, ...`, and a loud line where clients were skipped."""
    counted = [
        str(value)
        for report in reporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == COUNTED and report.when == "call"
    ]
    if counted:
        reporter.write_line(f"clients: {', '.join(sorted(counted))}")
    reasons = [str(report.longrepr) for report in reporter.stats.get("skipped", [])]
    skipped = [reason.split(NO_CLIENT, 1)[1].rstrip("')") for reason in reasons if NO_CLIENT in reason]
    if skipped:
        reporter.write_line(
            f"*** {len(skipped)} CLIENT TESTS SKIPPED: {'; '.join(sorted(set(skipped)))}. "
            "FRESHET_REQUIRE_CLIENTS=1 makes this a failure. ***",
            red=True,
            bold=True,
        )
