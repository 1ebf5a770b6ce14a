"""What an operator reads: an error with its place, and no secret of the request that met it."""

import subprocess
import sys

import pytest

PROGRAM = """
import structlog
from compose.log_lines import set_up_logging

set_up_logging("api", level="info", form={form!r})

def serve(headers):
    raise RuntimeError("broken")

try:
    serve({{b"api-key": b"fsk_0123456789ab_secret"}})
except RuntimeError as error:
    structlog.get_logger("t").error("request.failed", exc_info=error)
    import logging
    logging.getLogger("uvicorn.error").exception("failed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_traceback_shows_no_values_of_variables(form):
    """Among them are the keys of requests."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "RuntimeError" in done.stderr
    assert "secret" not in done.stderr.replace('b"fsk_0123456789ab_secret"', "")
    assert "in serve" in done.stderr
