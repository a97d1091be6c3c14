"""What everything rests on and knows nothing of images: files and paths, settings, keys of results, tables that grow
part by part, many tasks at once, draws from a key, the record of behaviour. Uses no other folder.
"""
