"""How good predictions are, how sure one can be of that, and what could fool one."""
