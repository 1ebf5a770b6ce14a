"""Segments: immutable rows on disk, exact (flat) or with a graph (hnsw)."""
