"""The state that an optimizer keeps of weights that are pruned, factored or replaced."""
