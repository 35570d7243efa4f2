"""Graph to loops: the kernel and its plan."""
