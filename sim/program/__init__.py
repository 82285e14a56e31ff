"""Graph on a system: sharding, collectives, memory, the automatic fit."""
