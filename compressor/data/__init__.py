"""Data sets as memory-mapped arrays, with splits and fingerprints."""
