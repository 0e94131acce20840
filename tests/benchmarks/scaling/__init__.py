"""The study of scaling: the law, its peers and the optimum before the same load, in simulated time."""
