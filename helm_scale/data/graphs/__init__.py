"""Molecules -> batches: edges, pairs, and labels as blocks (BlockBatch) or irreps (GraphBatch)."""
