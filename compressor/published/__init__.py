"""Files of published weights, which anybody may have made: what they are, and their tensors by name."""
