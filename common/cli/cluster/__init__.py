"""Large studies: the cases in chunks, spread over GPUs and machines."""
