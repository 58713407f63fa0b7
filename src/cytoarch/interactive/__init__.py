"""Drawing and seeing: a person's scribbles, a decoder that learns from them at once, and what it makes of a view."""
