"""What iterative magnitude pruning costs when only the survivors are stored and trained."""
