"""YAML with positions: text to data, judged by a schema, and what is wrong with it in plain sentences. Pure."""
