"""People to graph: formula text, arrays, Genred."""
