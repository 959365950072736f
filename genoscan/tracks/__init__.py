"""Where numbers go: scores and track files.  No torch here."""
