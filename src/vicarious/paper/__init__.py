"""This paper: its studies, rules and chapters, on top of the library."""
