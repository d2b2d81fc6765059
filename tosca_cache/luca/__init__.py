"""The LuCA module, its stacked form, its initialisation and its bank."""
