"""Draws what the stages measured: figures, tables and results/report.html. Reads files only, and needs no torch.

`inputs.py` reads, `verdict.py` puts the outcome into words, `panels_*.py` draw one panel each, `figures.py` puts panels
together as PNG files and as SVG for the page, `tables.py` and `page.py` write what is read.
"""
