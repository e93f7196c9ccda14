"""The joint search of sparsity and bits under a budget: its space, its walks, its evaluation and its agents."""
