"""Where numbers go: scores and track files, written, read and compared.  No torch here."""
