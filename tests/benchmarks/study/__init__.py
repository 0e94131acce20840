"""The study: the algorithms of HAProxy's compared, while servers are equal, slow, frozen, broken or replaced."""
