"""How hardware does what operators ask: one folder a kind behind one seam."""
