"""What people look at in a notebook: tables, plots, controls, exercises. Uses `experiments` and what lies below.

In a notebook, importing it also shows what the library logs, a line each.
"""

from IPython import get_ipython

from fusionlib.support.command_line import show_messages

if get_ipython() is not None:
    show_messages()
