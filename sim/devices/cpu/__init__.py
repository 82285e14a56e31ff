"""CPU servers: cores with caches and SIMD or matrix units, sockets, shared memory."""
