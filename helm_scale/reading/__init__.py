"""Input of users, read one way everywhere: frames of text, numbers, and who a molecule is."""
