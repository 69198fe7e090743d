"""What is on disk: stages and their state, the record of a run, trial files, settings files, released files. Typed.

The only room that knows a file's name, columns or keys. Imports `task` only.
"""
