"""The results folder: rows in Parquet, whole or not at all, on a disk or an object store."""
