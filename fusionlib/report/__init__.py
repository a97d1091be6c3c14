"""The paper's numbers beside ours: verdicts, model cards, pages, and whether kept results still fit. Uses `notebook`
and what lies below.
"""
