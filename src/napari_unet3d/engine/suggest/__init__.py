"""Where to paint next: what the model is unsure of, far from what is painted, slice by slice."""
