"""One file per paper: its claim, its grid, its published numbers, and where ours differ."""
