"""What the notebooks measure, table by table of the paper and beyond. Uses the presets and what lies below."""
