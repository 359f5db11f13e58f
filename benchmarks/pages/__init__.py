"""From result files to pages: tables, estimates, figures, and the papers' own numbers."""
