"""What the paper states: held against its own tables (`in_print`), and tested on what was measured here (`tested`)."""
