"""Tables and figures of the papers, row by row, with the command of each."""
