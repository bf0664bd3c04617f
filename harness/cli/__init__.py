"""The command `s4`: one file a command; whatever is slow to import is imported when a command needs it."""
