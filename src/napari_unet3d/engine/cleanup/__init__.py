"""Tidying predicted labels: small pieces, holes, largest piece, touching objects. Needs no torch."""
