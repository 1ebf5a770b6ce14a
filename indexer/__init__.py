"""From log to snapshot, and the snapshot itself."""
