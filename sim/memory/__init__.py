"""Device memory: DRAM presets, address mapping, the command-level controller, and the share of its peak it achieves."""
