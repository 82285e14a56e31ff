"""Request-level serving: arrivals, batching, the paged cache, replicas, and what users feel."""
