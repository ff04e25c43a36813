"""The study's data, nets and runs: prepared, planned and trained."""
