"""Complete runs: one store, one setting, some seeds, one directory."""
