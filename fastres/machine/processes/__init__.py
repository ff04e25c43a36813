"""What several processes of one run do together, and how they stop."""
