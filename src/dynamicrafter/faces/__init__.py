"""What several faces share: the models to choose from, options as controls, heard warnings, words for time."""
