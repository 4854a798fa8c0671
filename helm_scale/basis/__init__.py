"""Elements, shells, AO layout and AO conventions."""
