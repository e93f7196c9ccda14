"""What ships: exported files, the runtimes that run them, and how fast they are."""
