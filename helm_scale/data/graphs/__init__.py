"""Molecules -> GraphBatch: edges, pairs, and labels as blocks or irreps."""
