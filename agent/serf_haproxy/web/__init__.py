"""SHOW IN A BROWSER: metrics, documents and a page over HTTP, by a process of its own that reads reports."""
