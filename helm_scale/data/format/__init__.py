"""The dataset on disk: tar shards, manifest, samples, and the readers of other formats."""
