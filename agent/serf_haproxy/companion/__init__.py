"""ANNOUNCE: containers of this host, each as a node of its own, because their images cannot be changed."""
