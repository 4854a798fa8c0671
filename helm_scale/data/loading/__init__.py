"""From a dataset to this rank's micro-batches: sampling order, worker processes, quarantine."""
