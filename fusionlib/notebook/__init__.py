"""What people look at in a notebook: tables, plots, controls, exercises. Uses `experiments` and what lies below."""
