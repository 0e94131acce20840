"""WRITE: from servers and a template to the text of haproxy.cfg, and from texts to their difference; pure."""
