"""Elementary functions, written once in arithmetic that every backend has."""
