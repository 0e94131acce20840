"""Two balancers and one address, in network namespaces of their own."""
