"""Commands go to the log, questions to the snapshots."""
