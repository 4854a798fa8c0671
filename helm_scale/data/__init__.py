"""Shards, sampling and batches."""
