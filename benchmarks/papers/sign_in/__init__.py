"""The runs of "Sign-In to the Lottery": settings, masks, training, tables and figures."""
