"""The techniques, one a file: pure functions first, then the phase that uses them."""
