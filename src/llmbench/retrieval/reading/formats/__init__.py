"""One module for each family of formats: each takes the bytes of a file and fills a `Writer`. They run in a child process."""
