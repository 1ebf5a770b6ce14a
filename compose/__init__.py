"""Which parts run where, with which settings."""
