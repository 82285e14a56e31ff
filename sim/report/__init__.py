"""Tables, pages, traces, files."""
