"""Who is told of each request at its end: counts for Prometheus, an access log, traces, and records that were agreed to."""
