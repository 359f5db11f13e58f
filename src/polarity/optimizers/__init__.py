"""What an optimizer remembers of weights that are pruned, factored or replaced."""
