"""Wire bytes of an exchange to a file, and from the file to any client again."""
