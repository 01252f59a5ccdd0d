"""Encoded images: codes, codebook, blocks."""
