"""Who is asking: JSON web tokens, the keys of a project, and the arithmetic of expiry. No I/O."""
