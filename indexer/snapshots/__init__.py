"""Snapshots: the store that keeps them and the immutable views that readers hold."""
