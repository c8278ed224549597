"""Stars and galaxies in: tables of facts, catalogues of stars, and their validation."""
