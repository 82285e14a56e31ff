"""effsim: how long, how much memory, how much energy, how much money, and what limits it."""
