"""What a command runs with: files, environment and flags, read in one place."""
