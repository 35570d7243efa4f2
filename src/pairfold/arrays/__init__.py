"""Array libraries: one implementation each, behind one protocol."""
