"""The theory section of Sign-In to the Lottery: small problems, many runs in one array."""
