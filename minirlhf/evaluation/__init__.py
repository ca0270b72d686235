"""How good are the summaries, how sure are we, and at what price: the statistics behind the evaluate stage.

Everything here is a plain function on numbers and strings. `systems.py` alone touches models.
"""
