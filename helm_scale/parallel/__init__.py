"""Ranks, meshes and engines: the one place that knows torch.distributed."""
