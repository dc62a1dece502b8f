"""What a study's record says: storing, reading, statistics and tables."""
