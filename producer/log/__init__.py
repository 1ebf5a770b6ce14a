"""The log lives with its writer: the writer owns the medium, everyone downstream only reads it."""

from producer.log.protocol import Appended, Log, LogBatch, LogRecord, Logs, StoredRecord

__all__ = ["Appended", "Log", "LogBatch", "LogRecord", "Logs", "StoredRecord"]
