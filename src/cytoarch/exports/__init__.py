"""What a neuroanatomist takes home: maps, labels, tables and points in the formats of other programs."""
