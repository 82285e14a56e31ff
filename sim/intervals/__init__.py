"""How far a predicted time can be off: residuals of validated kernel classes and uncertainty of parameters by origin."""
