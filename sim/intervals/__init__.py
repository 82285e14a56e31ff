"""How far a predicted time can be off: residuals of validated kernel classes, origins of parameters."""
