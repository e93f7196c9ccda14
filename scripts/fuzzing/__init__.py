"""What `scripts/fuzz` is made of: a place with a file of every kind, mutations of them, and commands as children."""
