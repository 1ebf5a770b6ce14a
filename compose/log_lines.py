"""How the processes speak to their operator: structured lines on stderr, one event a line."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

__all__ = ["set_up_logging"]


def set_up_logging(process: str, *, level: str, form: Literal["auto", "console", "json"]) -> None:
    """Send structlog and the standard library's logging to stderr, each line with the name of the process."""
    number = logging.getLevelNamesMapping()[level.upper()]
    is_console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _logger, _method, event: {"process": process, **event},
    ]
    closing: list[structlog.typing.Processor] = (
        # Plain: a traceback with the values of variables would show the keys of requests.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if is_console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    structlog.configure(
        processors=[*shared, *closing],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *closing],
        )
    )
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler], force=True)
    # They say at INFO what our own lines say; their warnings matter.
    for chatty in ("uvicorn", "uvicorn.error", "aiokafka", "asyncio", "httpx2"):
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))
