"""The declarations, against what the systems' own headers say."""
