"""Processing in memory: command programs over DRAM banks, small processors in DRAM, and the host beside them."""
