"""Everything that speaks to the database: one replication stream, and questions asked as the subscriber."""
