"""One module a page: its layout for a view, and its callbacks."""
