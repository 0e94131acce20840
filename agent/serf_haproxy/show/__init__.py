"""SHOW: what people and programs see of a report: levels, the JSON document, the table, the answer to "why"."""
