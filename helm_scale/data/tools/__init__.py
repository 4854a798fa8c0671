"""What is done to whole datasets: split, merge, repack, summarise."""
