"""Where images come from: folders, zips, tables, downloads; each gives records of the same kind."""
