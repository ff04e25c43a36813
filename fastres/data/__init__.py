"""Packed images and the loaders that deliver them."""
