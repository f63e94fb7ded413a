"""Small students that learn from large teachers (Hinton et al. 2015)."""
