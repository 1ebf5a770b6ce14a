"""Bulk imports: Parquet files of a directory or a bucket into new namespaces of an index."""
