"""HEAR: what Serf says, in events, node files, the wake FIFO, the roster and its RPC."""
