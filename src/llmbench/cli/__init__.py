"""The verbs of the command line, one module a job. Each has `register(cli)`; heavy imports stand inside the functions."""
