"""Training in several processes, which hold the same weights and share every batch."""
