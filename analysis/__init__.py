"""From trial files to estimates, agreement, the gate, figures and a report.

Reads files only; imports neither torch nor trl.
"""
